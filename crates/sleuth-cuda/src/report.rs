use std::fmt::Write as _;

use crate::discovery::{Discovery, Driver, Fitness};
use crate::placement::Plan;

/// What there is and what would be placed where, as text for a terminal.
pub fn report(discovery: &Discovery, plan: &Plan) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_driver(&mut text, discovery);
    let _ = write_devices(&mut text, discovery);
    let _ = write_peers(&mut text, discovery);
    let _ = write_plan(&mut text, plan);
    text
}

fn write_driver(text: &mut String, discovery: &Discovery) -> std::fmt::Result {
    match &discovery.driver {
        Driver::Absent(reason) => writeln!(text, "driver   none: {reason}"),
        Driver::Present(version) => writeln!(text, "driver   CUDA {version}"),
    }
}

fn write_devices(text: &mut String, discovery: &Discovery) -> std::fmt::Result {
    if discovery.devices.is_empty() {
        return writeln!(text, "devices  none");
    }
    writeln!(
        text,
        "\ndevice  name                            capability  ecc      free of total MiB  bus"
    )?;
    for device in &discovery.devices {
        writeln!(
            text,
            "{:>6}  {:<30}  {:>10}  {:<7}  {:>7} of {:>7}  {}",
            device.ordinal,
            device.name.as_deref().unwrap_or("?"),
            device.compute_capability.map_or("?".to_owned(), |capability| capability.to_string()),
            device.ecc.map_or("?", |ecc| if ecc { "on" } else { "off" }),
            device.free_bytes >> 20,
            device.total_bytes >> 20,
            device.pci_bus_id.as_deref().unwrap_or("?"),
        )?;
        if let Some(uuid) = device.uuid {
            writeln!(text, "        {uuid}")?;
        }
        if let Fitness::Unfit(reason) = &device.fitness {
            writeln!(text, "        unfit: {reason}")?;
        }
    }
    Ok(())
}

fn write_peers(text: &mut String, discovery: &Discovery) -> std::fmt::Result {
    if discovery.devices.len() < 2 {
        return Ok(());
    }
    writeln!(text, "\ncopies from (rows) to (columns): P directly, H through the host")?;
    write!(text, "      ")?;
    for to in &discovery.devices {
        write!(text, "{:>4}", to.ordinal)?;
    }
    writeln!(text)?;
    for from in &discovery.devices {
        write!(text, "{:>6}", from.ordinal)?;
        for to in &discovery.devices {
            let healthy = [from, to].iter().all(|device| device.fitness == Fitness::Healthy);
            let way = match () {
                () if from.ordinal == to.ordinal || !healthy => "-",
                () if discovery.peers.reaches(from.ordinal, to.ordinal) => "P",
                () => "H",
            };
            write!(text, "{way:>4}")?;
        }
        writeln!(text)?;
    }
    Ok(())
}

fn write_plan(text: &mut String, plan: &Plan) -> std::fmt::Result {
    if !plan.replicas.is_empty() {
        writeln!(text, "\nreplica on  weights  workspace    cache MiB")?;
    }
    for placed in &plan.replicas {
        writeln!(
            text,
            "{:>10}  {:>7}  {:>9}  {:>7}",
            placed.ordinal,
            placed.weights >> 20,
            placed.workspace >> 20,
            placed.cache_bytes >> 20,
        )?;
    }
    for (ordinal, why) in &plan.left_out {
        writeln!(text, "no replica on {ordinal}: {why}")?;
    }
    if plan.short > 0 {
        writeln!(text, "{} of the replicas that are wanted find no room", plan.short)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::MemoryShare;
    use crate::capability::ComputeCapability;
    use crate::discovery::{DeviceFacts, DriverVersion, UnfitReason};
    use crate::fault::Fault;
    use crate::listing::{ListedDevice, Listing};
    use crate::peers::PeerMatrix;
    use crate::placement::{ReplicaNeed, Wanted, place};

    fn device(ordinal: u32, free_mib: u64) -> DeviceFacts {
        DeviceFacts {
            ordinal,
            name: Some("Test Device".to_owned()),
            uuid: None,
            pci_bus_id: Some(format!("0000:0{ordinal}:00.0")),
            compute_capability: Some(ComputeCapability::new(9, 0)),
            ecc: Some(true),
            total_bytes: 80 << 30,
            free_bytes: free_mib << 20,
            fitness: Fitness::Healthy,
        }
    }

    #[test]
    fn it_shows_devices_peers_and_what_is_placed() {
        let mut broken = device(2, 0);
        broken.fitness =
            Fitness::Unfit(UnfitReason::NoAnswer(Fault { call: "cuDeviceGet", code: 46 }));
        let mut peers = PeerMatrix::none();
        peers.open(0, 1);
        let discovery = Discovery {
            driver: Driver::Present(DriverVersion { major: 13, minor: 0 }),
            devices: vec![device(0, 1000), device(1, 2000), broken],
            peers,
        };
        let need = ReplicaNeed { weights: 600 << 20, workspace: 100 << 20, smallest_cache: 0 };
        let plan =
            place(&discovery.candidates(), MemoryShare::ALL, &need, Wanted::AsManyAsFit, None)
                .unwrap();
        let text = report(&discovery, &plan);
        assert_eq!(text, EXPECTED);
        let listing = Listing::new(&discovery, &plan);
        assert_eq!(listing.driver.as_deref(), Some("13.0"));
        assert_eq!(listing.peers, [(0, 1)]);
        let told = |listed: &ListedDevice| (listed.free_bytes, listed.unfit.is_some());
        let devices: Vec<_> = listing.devices.iter().map(told).collect();
        assert_eq!(devices, [(1000 << 20, false), (2000 << 20, false), (0, true)]);
        let placed: Vec<_> = listing.replicas.iter().map(|r| (r.ordinal, r.weight_bytes)).collect();
        assert_eq!(placed, [(1, 600 << 20), (0, 600 << 20)]);
        assert_eq!((listing.left_out[0].ordinal, listing.short), (2, 0));
    }

    const EXPECTED: &str = "\
driver   CUDA 13.0

device  name                            capability  ecc      free of total MiB  bus
     0  Test Device                            9.0  on          1000 of   81920  0000:00:00.0
     1  Test Device                            9.0  on          2000 of   81920  0000:01:00.0
     2  Test Device                            9.0  on             0 of   81920  0000:02:00.0
        unfit: it does not answer: cuDeviceGet: CUDA_ERROR_DEVICE_UNAVAILABLE (46)

copies from (rows) to (columns): P directly, H through the host
         0   1   2
     0   -   P   -
     1   H   -   -
     2   -   -   -

replica on  weights  workspace    cache MiB
         1      600        100     1300
         0      600        100      300
no replica on 2: it does not answer: cuDeviceGet: CUDA_ERROR_DEVICE_UNAVAILABLE (46)
";
}
