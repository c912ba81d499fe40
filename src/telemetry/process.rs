//! What the process is and takes: version, memory, files, processor time, looked up when it is asked for.
//!
//! The names are those of the Prometheus client libraries. What the system does not say is left out.

use std::fmt;

use plinth_storage::env::{Clock, SystemClock};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use rustix::process::{Resource, getrlimit};

/// Adds them to a registry.
pub(super) fn register(registry: &mut Registry) {
    let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("plinth_build", "What runs here", build);
    registry.register_collector(Box::new(Process { started: SystemClock.now().0 as f64 / 1e3 }));
}

/// Looks at the process each time.
#[derive(Debug)]
struct Process {
    /// In seconds since the Unix epoch.
    started: f64,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let memory = field(&status, "VmRSS:").map(|kib| kib * 1024);
        let gauges = [
            ("process_resident_memory_bytes", "Memory that the process holds", memory),
            ("process_open_fds", "Open files and sockets", open_files()),
            ("process_max_fds", "Most files and sockets that may be open", getrlimit(Resource::Nofile).current),
            ("process_threads", "Threads of the process", field(&status, "Threads:")),
        ];
        for (name, help, value) in gauges {
            let Some(value) = value.and_then(|value| i64::try_from(value).ok()) else { continue };
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let (name, started) = ("process_start_time_seconds", ConstGauge::new(self.started));
        let help = "When the metrics began, in seconds since the Unix epoch";
        started.encode(encoder.encode_descriptor(name, help, None, started.metric_type())?)?;
        let Some(seconds) = processor_seconds("self") else { return Ok(()) };
        let (name, used) = ("process_cpu_seconds", ConstCounter::new(seconds));
        let help = "Processor time that the process has used";
        used.encode(encoder.encode_descriptor(name, help, None, used.metric_type())?)
    }
}

/// The number behind a label of `/proc/self/status`.
fn field(status: &str, label: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(label))?.split_whitespace().next()?.parse().ok()
}

fn open_files() -> Option<u64> {
    // One of them is the directory that is being read.
    let count = std::fs::read_dir("/proc/self/fd").ok()?.count();
    u64::try_from(count).ok()?.checked_sub(1)
}

/// User and system time of a process, `self` or its number, in seconds: fields 14 and 15 of proc_pid_stat(5). The second
/// field is a name that may hold spaces.
pub(crate) fn processor_seconds(process: impl fmt::Display) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    let (user, system) = (ticks()?, ticks()?);
    Some((user + system) / rustix::param::clock_ticks_per_second() as f64)
}
