//! Each creation of a path is a stream of its own.

use std::collections::HashSet;

use plinth_api::error::ErrorCode;
use reqwest::Method;

use super::{Stream, TEXT, next};
use crate::client::answer;
use crate::harness::Server;

// Fails when two streams of one name have the same tag, or the tag is not looked at.
#[tokio::test(flavor = "multi_thread")]
async fn no_offset_or_etag_of_a_deleted_stream_is_one_of_the_next() {
    let mut server = Server::start().await;
    let (mut seen, mut etags) = (Vec::<String>::new(), HashSet::new());
    for round in 0..20 {
        let stream = Stream::made(&server.client(), "s", TEXT).await;
        let first = next(&stream.head().await);
        let end = stream.append(TEXT, "x").await;
        for old in &seen {
            let gone = stream.read(&format!("?offset={old}")).await;
            assert_eq!((gone.status, gone.problem().code), (410, ErrorCode::Gone), "{old} in round {round}");
            assert!(*old < first, "offsets of a later stream sort above");
        }
        assert!(etags.insert(stream.read("").await.header("etag").unwrap().to_owned()), "round {round}");
        seen.extend([first, end]);
        if round == 10 {
            server.kill9().await;
            server.restart(true).await;
            let stream = Stream::new(&server.client(), "s");
            assert_eq!(answer(stream.request(Method::DELETE, "")).await.status, 204);
        } else {
            assert_eq!(answer(stream.request(Method::DELETE, "")).await.status, 204);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_that_no_stream_gave_is_refused_and_a_small_number_more_is_the_same_place() {
    let server = Server::start().await;
    let stream = Stream::made(&server.client(), "s", TEXT).await;
    let middle = stream.append(TEXT, "a").await;
    let end = stream.append(TEXT, "b").await;
    for made_up in ["9999999999999999_9999999999999999", &end.replacen('1', "9", 1)] {
        assert_eq!(stream.read(&format!("?offset={made_up}")).await.status, 400, "{made_up}");
    }
    let (ahead, behind) = middle.split_once('_').unwrap();
    let one_more = format!("{ahead}_{:016}", behind.parse::<u64>().unwrap() + 1);
    assert_eq!(stream.read(&format!("?offset={one_more}")).await.text(), "b", "clients add one, and mean what follows");
}
