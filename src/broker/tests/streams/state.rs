//! Messages of the state protocol are read with the position after them.

use super::*;

// Fails when a reader of one kind gets what is stored, or the position before the message.
#[tokio::test]
async fn a_change_of_state_is_read_with_the_position_after_it_on_every_way_and_stored_as_it_was() {
    let world = world().await;
    let begin = world.stream("s", JSON).await.next;
    let mut follower = world.follow_stream("s", at(begin)).await;
    follower.next().await.expect("where it is");
    let change = r#"{"key":"1","headers":{"operation":"insert"}}"#;
    world.append("s", body(JSON, &format!("[{change},7,{change}]"))).await.expect("appended");

    let page = text(&world.read("s", StreamFrom::Start).await.expect("read"));
    let messages: Vec<serde_json::Value> = serde_json::from_str(&page).expect("JSON");
    assert_eq!(messages[1], 7);
    let offset = |index: usize| messages[index]["headers"]["offset"].as_str().expect("an offset").to_owned();
    let from = |token: &str| StreamFrom::At(GivenToken::parse(token).expect("a token of ours"));
    let rest = text(&world.read("s", from(&offset(0))).await.expect("read"));
    assert!(rest.starts_with("[7,{") && page.ends_with(&rest[1..]), "{rest}");
    assert_eq!(text(&world.read("s", from(&offset(2))).await.expect("read")), "[]");

    let moved = follower.next().await.expect("what was appended");
    assert_eq!(moved.pieces().concat(), page.as_bytes());
    assert_eq!(moved.event(0, crate::render::EventData::Json), format!("event: data\ndata:{page}\n\n"));
    assert_eq!(texts(&moved.batches), [change, "7", change]);
}
