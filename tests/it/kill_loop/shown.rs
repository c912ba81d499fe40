//! Live connections of the kill loop and what they show.

use plinth_api::records::{Gap, Record, RecordPage};
use plinth_audit::Seen;
use serde_json::json;

use super::Position;
use crate::client::{Client, SSE, SseStream, payload};

#[derive(Clone, Copy)]
pub(super) enum Transport {
    Sse,
    Ws,
}

/// What a live connection shows.
pub(super) enum Shown {
    /// Records, none for a marker, and the cursor after them.
    Records(Vec<Record>, Option<String>),
    /// Records are missing, and the cursor behind them.
    Gap(Gap, Option<String>),
    /// The connection is over.
    End,
}

/// A live connection of either kind.
pub(super) enum Live {
    Sse(SseStream),
    /// With the credit that is to be given back before the next frame is awaited.
    Ws(Box<crate::client::Ws>, usize),
}

impl Live {
    /// `None` when the server is gone or going.
    pub(super) async fn open(client: &Client, place: &Position, transport: Transport) -> Option<Self> {
        match transport {
            Transport::Sse => {
                let path = format!("/v1/topics/{}/records?from=earliest", place.topic);
                let mut request = client.get(&path).header("Accept", SSE);
                if let Some(cursor) = &place.cursor {
                    request = request.header("Last-Event-ID", cursor);
                }
                let response = request.send().await.ok().filter(|response| response.status().as_u16() < 500)?;
                assert_eq!(response.status(), 200);
                Some(Self::Sse(SseStream::new(response)))
            }
            Transport::Ws => {
                let mut ws = client.try_ws().await?;
                let from = place.cursor.as_ref().map_or("earliest".to_owned(), |cursor| format!("cursor:{cursor}"));
                let subscribe =
                    json!({"type": "subscribe", "id": "s", "topics": [place.topic], "from": from, "credit": 64});
                ws.send(&subscribe).await;
                Some(Self::Ws(Box::new(ws), 0))
            }
        }
    }

    /// What comes next. Cancel safe but for credit, which may be given twice.
    pub(super) async fn next(&mut self) -> Shown {
        match self {
            Self::Sse(stream) => {
                let Some(event) = stream.next().await else { return Shown::End };
                let data = &event.data;
                match event.event.as_str() {
                    "record" => Shown::Records(vec![serde_json::from_str(data).expect("a record")], Some(event.id)),
                    "caught_up" => Shown::Records(Vec::new(), Some(event.id)),
                    "gap" => Shown::Gap(serde_json::from_str(data).expect("a gap"), Some(event.id)),
                    "goaway" => Shown::End,
                    other => panic!("nothing is deleted here, but `{other}` came: {data}"),
                }
            }
            Self::Ws(ws, owed) => {
                if *owed > 0 {
                    ws.send(&json!({"type": "credit", "sub": "s", "n": *owed})).await;
                    *owed = 0;
                }
                let Some(frame) = ws.next().await else { return Shown::End };
                match frame.kind.as_str() {
                    "records" | "welcome" | "subscribed" | "caught_up" => {
                        *owed = frame.records.len();
                        Shown::Records(frame.records, frame.cursor)
                    }
                    "gap" => Shown::Gap(serde_json::from_str(&frame.text).expect("a gap"), frame.cursor),
                    "goaway" => Shown::End,
                    other => panic!("nothing is deleted here, but `{other}` came: {}", frame.text),
                }
            }
        }
    }
}

/// What a page shows of one partition, and where the next one begins.
pub(super) struct Page {
    pub(super) records: Vec<Seen>,
    pub(super) lost: Vec<(u64, u64)>,
    pub(super) next: u64,
}

impl Page {
    /// `from` is where the page began.
    pub(super) fn of(page: &RecordPage, from: u64) -> Self {
        let records: Vec<Seen> = page.records.iter().map(|r| Seen::new(r.offset, &payload(r))).collect();
        assert!(page.gaps.iter().all(|gap| gap.reason == "lost"), "nothing is trimmed here: {:?}", page.gaps);
        let lost: Vec<(u64, u64)> = page.gaps.iter().map(|gap| (gap.requested, gap.resumed_at)).collect();
        let ends = records.iter().map(|record| record.offset + 1).chain(lost.iter().map(|(_, to)| *to));
        let next = ends.max().unwrap_or(from);
        Self { records, lost, next }
    }
}
