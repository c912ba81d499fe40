//! What an operator sees of subscriptions.

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

use super::*;

impl Awake {
    /// The value of a series.
    fn shown(&self, series: &str) -> u64 {
        let (mut registry, mut shown) = (Registry::default(), String::new());
        self.wakes.metrics().register(&mut registry);
        text::encode(&mut shown, &registry).expect("text");
        let value = shown.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("{series} is not in {shown}")).parse().expect("a number")
    }

    fn calls(&self, outcome: &str) -> u64 {
        self.shown(&format!("plinth_webhook_calls_total{{outcome=\"{outcome}\"}}"))
    }

    fn open(&self) -> u64 {
        self.shown("plinth_wakes_open")
    }
}

// Fails when a call counts as what it is not, when the start does not count the wakes that are under way, and when one that has ended,
// or whose subscription was removed, still counts.
#[tokio::test]
async fn calls_are_counted_by_what_came_of_them_and_wakes_while_they_are_under_way() {
    let mut awake = awake().await;
    awake.stream("events/a").await;
    awake.made("s", awake.by_hook("events/*")).await;
    assert_eq!(awake.open(), 0);
    awake.hook.answers(&[(500, ""), (302, ""), (200, r#"{"done":true}"#), (200, "")]);
    awake.append("events/a", "x").await;
    let retries = "plinth_webhook_retries_total";
    assert_eq!((awake.calls("refused"), awake.shown(retries), awake.open()), (1, 0, 1));
    awake.pass(1_200).await;
    assert_eq!((awake.calls("refused"), awake.shown(retries), awake.open()), (2, 1, 1));
    awake.crash().await;
    assert_eq!(awake.open(), 1);
    awake.pass(2_400).await;
    assert_eq!((awake.calls("done"), awake.shown(retries), awake.open()), (1, 1, 0));
    awake.append("events/a", "y").await;
    assert_eq!((awake.calls("accepted"), awake.open()), (1, 1));
    assert_eq!((awake.shown(retries), awake.shown("plinth_webhook_duration_seconds_count")), (1, 2));
    awake.wakes.remove(&awake.world.caller, "s").await.expect("removed");
    assert_eq!(awake.open(), 0);

    let nobody = WakeRequest { webhook: Some("http://127.0.0.1:1/hook".into()), ..awake.by_hook("events/*") };
    awake.made("t", nobody).await;
    awake.append("events/a", "z").await;
    assert_eq!((awake.calls("failed"), awake.open()), (1, 1));
    awake.wakes =
        Wakes::new(awake.world.auth.clone(), awake.world.broker.clone(), Egress::new(EgressOptions::default()));
    awake.wakes.load_all().await.expect("subscriptions");
    awake.pass(60_000).await;
    assert_eq!((awake.calls("address"), awake.shown(retries)), (1, 1));
}
