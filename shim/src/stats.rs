//! A container's counters, in cgroup v2's message, which is what containerd's clients show and Kubernetes reads.

use containerd_shim_protos::cgroups_v2::metrics::{CPUStat, MemoryEvents, MemoryStat, Metrics, PidsStat};
use husk_protocol::Stats;
use protobuf::well_known_types::any::Any;
use protobuf::{Message, MessageField};

/// The message, packed.
pub fn packed(stats: &Stats) -> protobuf::Result<Any> {
    let value = metrics(stats).write_to_bytes()?;
    Ok(Any { type_url: "io.containerd.cgroups.v2.Metrics".into(), value, ..Default::default() })
}

fn metrics(stats: &Stats) -> Metrics {
    // A guest counts in nanoseconds, the message in microseconds.
    let microseconds = |nanoseconds: u64| nanoseconds / 1000;
    Metrics {
        pids: MessageField::some(PidsStat {
            current: stats.pids,
            // The message's word for no limit.
            limit: if stats.pids_limit == u64::MAX { 0 } else { stats.pids_limit },
            ..Default::default()
        }),
        cpu: MessageField::some(CPUStat {
            usage_usec: microseconds(stats.cpu_total),
            user_usec: microseconds(stats.cpu_user),
            system_usec: microseconds(stats.cpu_system),
            nr_periods: stats.cpu_periods,
            nr_throttled: stats.cpu_throttled_periods,
            throttled_usec: microseconds(stats.cpu_throttled),
            ..Default::default()
        }),
        memory: MessageField::some(memory(stats)),
        memory_events: MessageField::some(MemoryEvents { oom_kill: stats.oom_kills, ..Default::default() }),
        ..Default::default()
    }
}

fn memory(stats: &Stats) -> MemoryStat {
    let mut memory = MemoryStat {
        usage: stats.memory_usage,
        usage_limit: stats.memory_limit,
        max_usage: stats.memory_peak,
        swap_usage: stats.swap_usage,
        swap_limit: stats.swap_limit,
        ..Default::default()
    };
    for (name, value) in &stats.memory_detail {
        let field = match name.as_str() {
            "anon" => &mut memory.anon,
            "file" => &mut memory.file,
            "kernel_stack" => &mut memory.kernel_stack,
            "slab" => &mut memory.slab,
            "sock" => &mut memory.sock,
            "shmem" => &mut memory.shmem,
            "file_mapped" => &mut memory.file_mapped,
            "file_dirty" => &mut memory.file_dirty,
            "file_writeback" => &mut memory.file_writeback,
            "anon_thp" => &mut memory.anon_thp,
            "inactive_anon" => &mut memory.inactive_anon,
            "active_anon" => &mut memory.active_anon,
            "inactive_file" => &mut memory.inactive_file,
            "active_file" => &mut memory.active_file,
            "unevictable" => &mut memory.unevictable,
            "slab_reclaimable" => &mut memory.slab_reclaimable,
            "slab_unreclaimable" => &mut memory.slab_unreclaimable,
            "pgfault" => &mut memory.pgfault,
            "pgmajfault" => &mut memory.pgmajfault,
            "workingset_activate" => &mut memory.workingset_activate,
            "workingset_nodereclaim" => &mut memory.workingset_nodereclaim,
            "pgrefill" => &mut memory.pgrefill,
            "pgscan" => &mut memory.pgscan,
            "pgsteal" => &mut memory.pgsteal,
            "pgactivate" => &mut memory.pgactivate,
            "pgdeactivate" => &mut memory.pgdeactivate,
            "pglazyfree" => &mut memory.pglazyfree,
            "pglazyfreed" => &mut memory.pglazyfreed,
            "thp_fault_alloc" => &mut memory.thp_fault_alloc,
            "thp_collapse_alloc" => &mut memory.thp_collapse_alloc,
            _ => continue,
        };
        *field = *value;
    }
    memory
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_in_the_units_of_the_message_under_the_name_that_clients_know() {
        let stats = Stats {
            cpu_total: 7_000_000,
            memory_usage: 4096,
            memory_detail: vec![("inactive_file".into(), 512), ("unheard_of".into(), 1)],
            pids: 3,
            pids_limit: u64::MAX,
            oom_kills: 2,
            ..Default::default()
        };
        let any = packed(&stats).unwrap();
        assert_eq!(any.type_url, "io.containerd.cgroups.v2.Metrics");
        let read = Metrics::parse_from_bytes(&any.value).unwrap();
        assert_eq!((read.cpu.usage_usec, read.memory.usage, read.memory.inactive_file), (7000, 4096, 512));
        assert_eq!((read.pids.current, read.pids.limit, read.memory_events.oom_kill), (3, 0, 2));
    }
}
