//! What the guest's processors say about themselves: what KVM can virtualise, less what we do not want to, and the
//! topology of our machine instead of the host's (one package, every vcpu a core of its own).
//!
//! Pure: entries in, entries out, so that a fixed input shows what every guest will see.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

/// The entries for vcpu `id` of `vcpus`, made from those that KVM supports.
pub fn for_vcpu(supported: &[kvm_cpuid_entry2], id: u8, vcpus: u8) -> Vec<kvm_cpuid_entry2> {
    let mut entries: Vec<_> = supported
        .iter()
        // Given anew below, or absent: extended topologies of the host.
        .filter(|entry| !matches!(entry.function, TOPOLOGY | TOPOLOGY_V2 | AMD_TOPOLOGY_V2))
        .copied()
        .collect();
    for entry in &mut entries {
        hide(entry);
        place(entry, u32::from(id), u32::from(vcpus));
    }
    entries.extend(topology(u32::from(id), u32::from(vcpus)));
    entries
}

/// The extended states that a guest can have, as bits of XCR0; none if there is no XSAVE.
pub fn extended_states(supported: &[kvm_cpuid_entry2]) -> u64 {
    let entry = supported.iter().find(|entry| entry.function == XSAVE && entry.index == 0);
    entry.map_or(0, |entry| u64::from(entry.eax) | u64::from(entry.edx) << 32)
}

/// Takes away what a container's guest has no use for and what would widen the way to the host.
fn hide(entry: &mut kvm_cpuid_entry2) {
    match entry.function {
        0 => entry.eax = entry.eax.clamp(TOPOLOGY, TOPOLOGY_V2),
        1 => {
            entry.ecx &=
                !(ECX1_DTES64 | ECX1_MONITOR | ECX1_DS_CPL | ECX1_VMX | ECX1_SMX | ECX1_EIST | ECX1_TM2);
            entry.ecx &= !(ECX1_PDCM | ECX1_DCA);
            // KVM makes both in software on every host.
            entry.ecx |= ECX1_TSC_DEADLINE | ECX1_HYPERVISOR;
            entry.edx &= !(EDX1_DS | EDX1_ACPI | EDX1_TM | EDX1_PBE);
        }
        MONITOR_LEAF | PMU | RDT | RDT_ALLOCATION | SGX | TRACE | AMD_SVM | AMD_SEV | AMD_PMU_V2 => {
            clear(entry)
        }
        // Only that the local APIC's timer never stops: without it a kernel looks for another timer.
        POWER => {
            clear(entry);
            entry.eax = EAX6_ARAT;
        }
        7 if entry.index == 0 => {
            entry.ebx &=
                !(EBX7_SGX | EBX7_HLE | EBX7_RTM | EBX7_RDT_MONITORING | EBX7_RDT_ALLOCATION | EBX7_TRACE);
            entry.ecx &= !(ECX7_WAITPKG | ECX7_SGX_LAUNCH);
        }
        AMD_FEATURES => {
            entry.ecx &= !(ECXA_SVM | ECXA_IBS | ECXA_SKINIT | ECXA_WDT | ECXA_PERF_CORE | ECXA_PERF_NB);
            entry.ecx &= !(ECXA_PERF_LLC | ECXA_MONITORX);
        }
        _ => {}
    }
}

/// Puts the vcpu into its place among the others.
fn place(entry: &mut kvm_cpuid_entry2, id: u32, vcpus: u32) {
    match entry.function {
        1 => {
            entry.ebx = entry.ebx & 0xffff | vcpus << 16 | id << 24;
            entry.edx = if vcpus > 1 { entry.edx | EDX1_HTT } else { entry.edx & !EDX1_HTT };
        }
        // Caches: the first two levels belong to a vcpu, the rest to all; one thread per core.
        INTEL_CACHES if entry.eax & CACHE_TYPE != 0 => {
            let level = entry.eax >> 5 & 7;
            let sharing = if level >= 3 { vcpus - 1 } else { 0 };
            entry.eax = entry.eax & 0x3fff | sharing << 14 | (vcpus - 1).min(63) << 26;
        }
        AMD_CACHES if entry.eax & CACHE_TYPE != 0 => {
            let level = entry.eax >> 5 & 7;
            let sharing = if level >= 3 { vcpus - 1 } else { 0 };
            entry.eax = entry.eax & 0x3fff | sharing << 14;
        }
        AMD_SIZES => entry.ecx = id_bits(vcpus) << 12 | (vcpus - 1),
        AMD_CORE => {
            entry.eax = id;
            entry.ebx = id & 0xff;
            entry.ecx = 0;
            entry.edx = 0;
        }
        _ => {}
    }
}

/// Leaves 0xb and 0x1f: a level of threads (one) and a level of cores (all vcpus).
fn topology(id: u32, vcpus: u32) -> impl Iterator<Item = kvm_cpuid_entry2> {
    [TOPOLOGY, TOPOLOGY_V2].into_iter().flat_map(move |function| {
        [(0, 0, 1, LEVEL_THREAD), (1, id_bits(vcpus), vcpus, LEVEL_CORE), (2, 0, 0, 0)].into_iter().map(
            move |(index, shift, count, kind)| kvm_cpuid_entry2 {
                function,
                index,
                flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
                eax: shift,
                ebx: count,
                ecx: kind << 8 | index,
                edx: id,
                ..Default::default()
            },
        )
    })
}

/// How many bits of an APIC id tell the vcpus apart.
fn id_bits(vcpus: u32) -> u32 {
    vcpus.next_power_of_two().trailing_zeros()
}

fn clear(entry: &mut kvm_cpuid_entry2) {
    (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0);
}

// Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E.
const INTEL_CACHES: u32 = 0x4;
const MONITOR_LEAF: u32 = 0x5;
const POWER: u32 = 0x6;
const PMU: u32 = 0xa;
const TOPOLOGY: u32 = 0xb;
const XSAVE: u32 = 0xd;
const RDT: u32 = 0xf;
const RDT_ALLOCATION: u32 = 0x10;
const SGX: u32 = 0x12;
const TRACE: u32 = 0x14;
const TOPOLOGY_V2: u32 = 0x1f;
const AMD_FEATURES: u32 = 0x8000_0001;
const AMD_SIZES: u32 = 0x8000_0008;
const AMD_SVM: u32 = 0x8000_000a;
const AMD_CACHES: u32 = 0x8000_001d;
const AMD_CORE: u32 = 0x8000_001e;
const AMD_SEV: u32 = 0x8000_001f;
const AMD_PMU_V2: u32 = 0x8000_0022;
const AMD_TOPOLOGY_V2: u32 = 0x8000_0026;
const LEVEL_THREAD: u32 = 1;
const LEVEL_CORE: u32 = 2;
const CACHE_TYPE: u32 = 0x1f;
const ECX1_DTES64: u32 = 1 << 2;
const ECX1_MONITOR: u32 = 1 << 3;
const ECX1_DS_CPL: u32 = 1 << 4;
const ECX1_VMX: u32 = 1 << 5;
const ECX1_SMX: u32 = 1 << 6;
const ECX1_EIST: u32 = 1 << 7;
const ECX1_TM2: u32 = 1 << 8;
const ECX1_PDCM: u32 = 1 << 15;
const ECX1_DCA: u32 = 1 << 18;
const ECX1_TSC_DEADLINE: u32 = 1 << 24;
const ECX1_HYPERVISOR: u32 = 1 << 31;
const EDX1_DS: u32 = 1 << 21;
const EDX1_ACPI: u32 = 1 << 22;
const EDX1_HTT: u32 = 1 << 28;
const EDX1_TM: u32 = 1 << 29;
const EDX1_PBE: u32 = 1 << 31;
const EAX6_ARAT: u32 = 1 << 2;
const EBX7_SGX: u32 = 1 << 2;
const EBX7_HLE: u32 = 1 << 4;
const EBX7_RTM: u32 = 1 << 11;
const EBX7_RDT_MONITORING: u32 = 1 << 12;
const EBX7_RDT_ALLOCATION: u32 = 1 << 15;
const EBX7_TRACE: u32 = 1 << 25;
const ECX7_WAITPKG: u32 = 1 << 5;
const ECX7_SGX_LAUNCH: u32 = 1 << 30;
const ECXA_SVM: u32 = 1 << 2;
const ECXA_IBS: u32 = 1 << 10;
const ECXA_SKINIT: u32 = 1 << 12;
const ECXA_WDT: u32 = 1 << 13;
const ECXA_PERF_CORE: u32 = 1 << 23;
const ECXA_PERF_NB: u32 = 1 << 24;
const ECXA_PERF_LLC: u32 = 1 << 28;
const ECXA_MONITORX: u32 = 1 << 29;

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything on, so that whatever is missing afterwards was taken away.
    fn host() -> Vec<kvm_cpuid_entry2> {
        let all = |function, index| kvm_cpuid_entry2 {
            function,
            index,
            eax: u32::MAX,
            ebx: u32::MAX,
            ecx: u32::MAX,
            edx: u32::MAX,
            ..Default::default()
        };
        let cache =
            |function, index, level: u32| kvm_cpuid_entry2 { eax: 1 | level << 5, ..all(function, index) };
        let plain =
            [0, 1, 2, 5, 6, 7, 0xa, 0xb, 0xd, 0x12, 0x14, 0x1f, 0x4000_0000, 0x4000_0001, 0x8000_0001];
        let amd = [0x8000_0008, 0x8000_000a, 0x8000_001e, 0x8000_001f, 0x8000_0022, 0x8000_0026];
        let mut host: Vec<_> = plain.into_iter().chain(amd).map(|function| all(function, 0)).collect();
        host.extend([cache(4, 0, 1), cache(4, 3, 3), cache(0x8000_001d, 0, 2), cache(0x8000_001d, 3, 3)]);
        host
    }

    fn find(entries: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
        let found: Vec<_> = entries.iter().filter(|e| e.function == function && e.index == index).collect();
        assert_eq!(found.len(), 1, "leaf {function:#x}.{index}");
        *found[0]
    }

    #[test]
    fn nested_virtualisation_and_performance_counters_are_hidden() {
        let entries = for_vcpu(&host(), 0, 1);
        assert_eq!(find(&entries, 1, 0).ecx & (ECX1_VMX | ECX1_MONITOR | ECX1_PDCM), 0);
        assert_eq!(find(&entries, 0x8000_0001, 0).ecx & (ECXA_SVM | ECXA_PERF_CORE | ECXA_MONITORX), 0);
        for leaf in [5, 0xa, 0x12, 0x14, 0x8000_000a, 0x8000_001f, 0x8000_0022] {
            let entry = find(&entries, leaf, 0);
            assert_eq!((entry.eax, entry.ebx, entry.ecx, entry.edx), (0, 0, 0, 0), "leaf {leaf:#x}");
        }
        assert!(entries.iter().all(|entry| entry.function != 0x8000_0026));
        assert_eq!(find(&entries, 6, 0).eax, EAX6_ARAT);
    }

    #[test]
    fn what_kvm_provides_for_its_guests_is_there() {
        let entries = for_vcpu(&host(), 0, 1);
        let features = find(&entries, 1, 0).ecx;
        assert_eq!(features & ECX1_HYPERVISOR, ECX1_HYPERVISOR);
        assert_eq!(features & ECX1_TSC_DEADLINE, ECX1_TSC_DEADLINE);
        assert_eq!(find(&entries, 0x4000_0001, 0).eax, u32::MAX);
        assert_eq!(find(&entries, 0xd, 0).eax, u32::MAX);
    }

    #[test]
    fn all_leaves_tell_the_same_topology() {
        for (vcpus, bits) in [(1u8, 0), (2, 1), (3, 2), (4, 2), (8, 3), (32, 5)] {
            for id in [0, vcpus - 1] {
                let entries = for_vcpu(&host(), id, vcpus);
                let (id, count) = (u32::from(id), u32::from(vcpus));
                let one = find(&entries, 1, 0);
                assert_eq!(one.ebx >> 24, id);
                assert_eq!(one.ebx >> 16 & 0xff, count);
                assert_eq!(one.edx & EDX1_HTT != 0, vcpus > 1);
                for leaf in [0xb, 0x1f] {
                    let (threads, cores) = (find(&entries, leaf, 0), find(&entries, leaf, 1));
                    assert_eq!((threads.eax, threads.ebx, threads.ecx, threads.edx), (0, 1, 0x100, id));
                    assert_eq!((cores.eax, cores.ebx, cores.ecx, cores.edx), (bits, count, 0x201, id));
                }
                assert_eq!(find(&entries, 0x8000_0008, 0).ecx, bits << 12 | (count - 1));
                assert_eq!(find(&entries, 0x8000_001e, 0).eax, id);
                assert_eq!(find(&entries, 4, 0).eax >> 14 & 0xfff, 0);
                assert_eq!(find(&entries, 4, 3).eax >> 14 & 0xfff, count - 1);
                assert_eq!(find(&entries, 4, 3).eax >> 26, count - 1);
                assert_eq!(find(&entries, 0x8000_001d, 0).eax >> 14 & 0xfff, 0);
                assert_eq!(find(&entries, 0x8000_001d, 3).eax >> 14 & 0xfff, count - 1);
            }
        }
    }
}
