//! Starting the driver and asking devices.

use sys::CUdevice_attribute_enum as Attribute;

use super::{
    CStr, ComputeCapability, Context, DeviceFacts, DeviceUuid, Discovery, Driver, DriverVersion,
    Fault, Fitness, NO_DEVICE, NoDriver, OLDEST_DRIVER, PeerMatrix, UnfitReason, c_char, c_int,
    checked, device, result, sys, wrapped,
};
use crate::driver::library::library;

/// Bytes that are written to a device's memory and read back.
const TEST_BYTES: u64 = 64 << 10;

/// Asks for everything, on a thread that has no context of its own.
pub(crate) fn discover() -> Discovery {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    crate::driver::lazy::keep();
    let (version, count) = match start() {
        Ok(started) => started,
        Err(reason) => return Discovery::absent(reason),
    };
    let devices: Vec<_> = (0..count).map(facts).collect();
    let peers = peers(&devices);
    Discovery { driver: Driver::Present(version), devices, peers }
}

/// Opens the library, starts the driver and counts devices, in an order in which nothing is called
/// that is not there.
fn start() -> Result<(DriverVersion, u32), NoDriver> {
    if library().is_none() {
        return Err(NoDriver::NoLibrary);
    }
    let mut number: c_int = 0;
    // SAFETY: the function writes one number, and may be called before `cuInit`.
    let returned = unsafe { sys::cuDriverGetVersion(&raw mut number) };
    checked("cuDriverGetVersion", returned).map_err(NoDriver::NotStarted)?;
    let found = DriverVersion::from_number(number);
    if found < OLDEST_DRIVER {
        return Err(NoDriver::TooOld { found });
    }
    let counted = wrapped("cuInit", result::init())
        .and_then(|()| wrapped("cuDeviceGetCount", result::device::get_count()));
    match counted {
        Ok(count) => Ok((found, u32::try_from(count).unwrap_or(0))),
        // No device is no fault of the driver.
        Err(fault) if fault.code == NO_DEVICE => Ok((found, 0)),
        Err(fault) => Err(NoDriver::NotStarted(fault)),
    }
}

fn facts(ordinal: u32) -> DeviceFacts {
    let mut facts = DeviceFacts::unknown(ordinal);
    if let Err(reason) =
        describe(&mut facts).map_err(UnfitReason::NoAnswer).and_then(|()| try_out(&mut facts))
    {
        facts.fitness = Fitness::Unfit(reason);
    }
    facts
}

/// What can be known without a context.
fn describe(facts: &mut DeviceFacts) -> Result<(), Fault> {
    let device = device(facts.ordinal)?;
    facts.name = Some(wrapped("cuDeviceGetName", result::device::get_name(device))?);
    let uuid = wrapped("cuDeviceGetUuid_v2", result::device::get_uuid(device))?;
    facts.uuid = Some(DeviceUuid(uuid.bytes.map(|byte| byte as u8)));
    facts.pci_bus_id = Some(pci_bus_id(device)?);
    let attribute = |attribute| {
        // SAFETY: `cuDeviceGet` returned the device.
        wrapped("cuDeviceGetAttribute", unsafe { result::device::get_attribute(device, attribute) })
    };
    let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    facts.compute_capability = Some(ComputeCapability::new(major as u32, minor as u32));
    facts.ecc = Some(attribute(Attribute::CU_DEVICE_ATTRIBUTE_ECC_ENABLED)? != 0);
    // SAFETY: as above.
    let total = wrapped("cuDeviceTotalMem_v2", unsafe { result::device::total_mem(device) })?;
    facts.total_bytes = total as u64;
    Ok(())
}

fn pci_bus_id(device: sys::CUdevice) -> Result<String, Fault> {
    const BYTES: c_int = 32;
    let mut buffer = [0_u8; BYTES as usize];
    // SAFETY: the function writes at most the given number of bytes.
    let returned =
        unsafe { sys::cuDeviceGetPCIBusId(buffer.as_mut_ptr().cast::<c_char>(), BYTES, device) };
    checked("cuDeviceGetPCIBusId", returned)?;
    let text = CStr::from_bytes_until_nul(&buffer).map(CStr::to_string_lossy).unwrap_or_default();
    Ok(text.into_owned())
}

/// Makes a context, asks what is free, and writes and reads memory.
fn try_out(facts: &mut DeviceFacts) -> Result<(), UnfitReason> {
    let context = Context::retain(facts.ordinal).map_err(UnfitReason::NoAnswer)?;
    let (free, _) = context.memory().map_err(UnfitReason::NoAnswer)?;
    facts.free_bytes = free;
    // A device that is full of somebody else's work is healthy; placement sees that nothing is
    // free.
    if free < TEST_BYTES {
        return Ok(());
    }
    let kept = keeps_bytes(&context).map_err(UnfitReason::NoAnswer)?;
    if kept { Ok(()) } else { Err(UnfitReason::MemoryTest) }
}

fn keeps_bytes(context: &Context) -> Result<bool, Fault> {
    let stream = context.stream()?;
    let span = context.allocate(TEST_BYTES)?;
    let written: Vec<u8> =
        (0..TEST_BYTES).map(|index| (index.wrapping_mul(167) >> 3) as u8).collect();
    let mut read = vec![0; written.len()];
    let tried = stream.upload(span, &written).and_then(|()| stream.download(span, &mut read));
    tried.and(context.free(span))?;
    Ok(written == read)
}

fn peers(devices: &[DeviceFacts]) -> PeerMatrix {
    let healthy = || devices.iter().filter(|device| device.fitness == Fitness::Healthy);
    let mut peers = PeerMatrix::none();
    for from in healthy() {
        for to in healthy().filter(|to| to.ordinal != from.ordinal) {
            // The copy is made by the device that receives, which must reach the other's memory.
            if can_access(to.ordinal, from.ordinal).unwrap_or(false) {
                peers.open(from.ordinal, to.ordinal);
            }
        }
    }
    peers
}

fn can_access(reader: u32, owner: u32) -> Result<bool, Fault> {
    let reader = device(reader)?;
    let owner = device(owner)?;
    let mut can: c_int = 0;
    // SAFETY: the function writes one number; `cuDeviceGet` returned both devices.
    let returned = unsafe { sys::cuDeviceCanAccessPeer(&raw mut can, reader, owner) };
    checked("cuDeviceCanAccessPeer", returned)?;
    Ok(can != 0)
}
