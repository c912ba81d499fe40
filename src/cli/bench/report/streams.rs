//! Streams beside other servers: what was measured, and the aims.

use serde::Serialize;

use super::Report;

/// Streams of ours and of another server of the protocol, in turns; medians of several rounds.
#[derive(Debug, Serialize)]
pub(in super::super) struct Streams {
    pub(in super::super) connections: usize,
    pub(in super::super) appends_to_one: Compared,
    pub(in super::super) streams: usize,
    pub(in super::super) appends_to_many: Compared,
    pub(in super::super) reads: Compared,
    pub(in super::super) tail: Tails,
}

/// The same requests to both.
#[derive(Debug, Serialize)]
pub(in super::super) struct Compared {
    pub(in super::super) ours: TurnRate,
    pub(in super::super) peer: Option<TurnRate>,
    /// Our rate per that of the peer: the median of what the rounds give, each by itself.
    pub(in super::super) ratio: Option<f64>,
}

/// Requests as fast as the connections allow.
#[derive(Debug, Serialize)]
pub(in super::super) struct TurnRate {
    pub(in super::super) requests_per_second: f64,
    pub(in super::super) p50_ms: f64,
    pub(in super::super) p99_ms: f64,
    /// Processor time of the server for one request.
    pub(in super::super) cpu_us: f64,
}

/// From the moment of sending an append to each follower's receipt.
#[derive(Debug, Serialize)]
pub(in super::super) struct Tails {
    pub(in super::super) followers: usize,
    pub(in super::super) appends_per_second: u32,
    pub(in super::super) ours: TailTime,
    pub(in super::super) peer: Option<TailTime>,
}

/// Medians of what the rounds give.
#[derive(Debug, Serialize)]
pub(in super::super) struct TailTime {
    pub(in super::super) p50_ms: f64,
    pub(in super::super) p99_ms: f64,
}

/// Appends on a store that is far away.
#[derive(Debug, Serialize)]
pub(in super::super) struct Far {
    pub(in super::super) streams: usize,
    pub(in super::super) connections: usize,
    pub(in super::super) compared: Compared,
}

impl Report {
    /// Aims that need the other servers.
    pub(super) fn judge_streams(&mut self) {
        if let Some(streams) = &self.streams {
            let (one, many, reads) = (streams.appends_to_one.ratio, streams.appends_to_many.ratio, streams.reads.ratio);
            let tail = streams.tail.peer.as_ref().map(|peer| streams.tail.ours.p99_ms / peer.p99_ms.max(1e-9));
            for (name, ratio, bound, least) in [
                ("appends of 100 B to one stream per append to the peer's", one, ">= 0.8", 0.8),
                ("the same over many streams", many, ">= 1", 1.0),
                ("reads of 1 KiB per read of the peer's", reads, ">= 0.8", 0.8),
            ] {
                if let Some(ratio) = ratio {
                    self.aim(name, ratio, bound, ratio >= least);
                }
            }
            if let Some(tail) = tail {
                self.aim("p99 to a follower of a stream, per that of the peer", tail, "<= 1.5", tail <= 1.5);
            }
        }
        self.judge_far();
    }

    fn judge_far(&mut self) {
        let far = self.far.iter().filter_map(|far| {
            let (ratio, peer) = (far.compared.ratio?, far.compared.peer.as_ref()?);
            Some((far.connections, ratio, far.compared.ours.p50_ms / peer.p50_ms.max(1e-9)))
        });
        for (connections, rate, p50) in far.collect::<Vec<_>>() {
            let name = format!("appends with 30 ms to the store on {connections} connections, per append of s2 lite");
            self.aim(name, rate, ">= 10", rate >= 10.0);
            self.aim(
                format!("p50 of these on {connections} connections, per that of s2 lite"),
                p50,
                "<= 1",
                p50 <= 1.0,
            );
        }
    }
}
