use sleuth_cuda::{
    ComputeCapability, Device, Driver, DriverVersion, Fault, Fitness, Kernels, MemoryShare,
    NoDriver, Pool, PoolSettings, ReplicaNeed, UnfitReason, Wanted, discover, place,
};

use crate::harness::Standin;

#[test]
fn every_device_is_described_and_tried() {
    let standin = Standin::new(2, 1 << 20);
    standin.can_read(1, 0, 0);
    let discovery = discover();
    assert_eq!(discovery.driver, Driver::Present(DriverVersion { major: 13, minor: 0 }));
    let [first, second] = &discovery.devices[..] else { panic!("{discovery:?}") };
    assert_eq!(first.name.as_deref(), Some("Stand-in 0"));
    assert_eq!(first.uuid.unwrap().to_string(), "GPU-00102030-4050-6070-8090-a0b0c0d0e0f0");
    assert_eq!(second.pci_bus_id.as_deref(), Some("0000:11:00.0"));
    assert_eq!(first.compute_capability, Some(ComputeCapability::new(9, 0)));
    assert_eq!(first.ecc, Some(true));
    assert_eq!((first.total_bytes, first.free_bytes), (1 << 20, 1 << 20));
    assert_eq!((&first.fitness, &second.fitness), (&Fitness::Healthy, &Fitness::Healthy));
    // Device 1 cannot read device 0, so nothing goes from 0 to 1 directly.
    assert_eq!(discovery.peers.pairs().collect::<Vec<_>>(), [(1, 0)]);
    assert_eq!(standin.calls("cuMemAlloc_v2", 0), 1);
}

#[test]
fn a_device_that_cannot_be_opened_stands_in_nobodys_way() {
    let standin = Standin::new(3, 1 << 20);
    standin.unopened(1, 46);
    let discovery = discover();
    let unfit = UnfitReason::NoAnswer(Fault { call: "cuDevicePrimaryCtxRetain", code: 46 });
    assert_eq!(discovery.devices[1].fitness, Fitness::Unfit(unfit.clone()));
    assert_eq!(discovery.devices[1].name.as_deref(), Some("Stand-in 1"));
    assert_eq!(discovery.devices[1].free_bytes, 0);
    assert_eq!(discovery.peers.pairs().collect::<Vec<_>>(), [(0, 2), (2, 0)]);
    let pool = Pool::open(&discovery, &[0, 1, 2, 7], PoolSettings::default());
    assert_eq!(pool.devices().map(Device::ordinal).collect::<Vec<_>>(), [0, 2]);
    let unknown = UnfitReason::NoAnswer(Fault { call: "cuDeviceGet", code: 101 });
    assert_eq!(pool.left_out(), [(1, unfit), (7, unknown)]);
}

#[test]
fn a_device_that_fails_after_discovery_is_left_out_of_the_pool() {
    let standin = Standin::new(2, 1 << 20);
    let discovery = discover();
    standin.unopened(0, 46);
    let pool = Pool::open(&discovery, &[0, 1], PoolSettings::default());
    assert_eq!(pool.devices().count(), 1);
    assert_eq!(pool.left_out()[0].0, 0);
}

#[test]
fn a_question_that_is_not_answered_makes_one_device_unfit() {
    let standin = Standin::new(2, 1 << 20);
    // The first of the calls is for device 0.
    standin.fail("cuDeviceTotalMem_v2", -1, 1, 999);
    let discovery = discover();
    let unfit = UnfitReason::NoAnswer(Fault { call: "cuDeviceTotalMem_v2", code: 999 });
    assert_eq!(discovery.devices[0].fitness, Fitness::Unfit(unfit));
    assert_eq!(discovery.devices[1].fitness, Fitness::Healthy);
}

#[test]
fn memory_that_gives_back_other_bytes_makes_a_device_unfit() {
    let standin = Standin::new(2, 1 << 20);
    standin.spoil("cuMemcpyHtoDAsync_v2", 1, 1);
    let discovery = discover();
    assert_eq!(discovery.devices[0].fitness, Fitness::Healthy);
    assert_eq!(discovery.devices[1].fitness, Fitness::Unfit(UnfitReason::MemoryTest));
}

#[test]
fn a_full_device_is_healthy_and_gets_no_replica() {
    let standin = Standin::new(1, 1 << 20);
    standin.foreign(0, 1 << 20);
    let discovery = discover();
    assert_eq!(discovery.devices[0].fitness, Fitness::Healthy);
    let need = ReplicaNeed { weights: 1, workspace: 0, smallest_cache: 0 };
    let candidates = discovery.candidates();
    let plan = place(&candidates, MemoryShare::ALL, &need, Wanted::Exactly(1), None).unwrap();
    assert_eq!((plan.replicas.len(), plan.short), (0, 1));
}

#[test]
fn a_driver_without_devices_is_present() {
    let _standin = Standin::new(0, 0);
    let discovery = discover();
    assert_eq!(discovery.driver, Driver::Present(DriverVersion { major: 13, minor: 0 }));
    assert_eq!(discovery.devices, []);
}

#[test]
fn a_driver_that_is_too_old_is_asked_for_nothing_else() {
    let standin = Standin::new(1, 1 << 20);
    standin.driver(11_030, 0);
    let found = DriverVersion { major: 11, minor: 3 };
    let discovery = discover();
    assert_eq!(discovery.driver, Driver::Absent(NoDriver::TooOld { found }));
    let Driver::Absent(reason) = discovery.driver else { panic!("there is one") };
    assert_eq!(
        reason.to_string(),
        "the driver supports CUDA 11.3 and 11.4 is needed: install a newer driver"
    );
    assert_eq!(standin.calls("cuInit", -1), 0);
}

#[test]
fn a_driver_that_does_not_start_says_why() {
    let standin = Standin::new(1, 1 << 20);
    standin.driver(13_000, 803);
    let fault = Fault { call: "cuInit", code: 803 };
    assert_eq!(discover().driver, Driver::Absent(NoDriver::NotStarted(fault)));
}

#[test]
fn devices_that_no_kernel_was_built_for_are_unfit() {
    let standin = Standin::new(2, 1 << 20);
    standin.capability(1, 7, 5);
    let mut discovery = discover();
    discovery.require(&Kernels { sass: &[], ptx: &[ComputeCapability::new(8, 0)] });
    assert_eq!(discovery.devices[0].fitness, Fitness::Healthy);
    assert!(matches!(
        discovery.devices[1].fitness,
        Fitness::Unfit(UnfitReason::Kernels {
            device: ComputeCapability { major: 7, minor: 5 },
            ..
        })
    ));
}
