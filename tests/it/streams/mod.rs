//! The protocol of Durable Streams where its public suite does not look: what other transports see of a stream, what is left
//! after a crash, what limits and credentials do, and what the answers are bounded by. The suite itself runs by `make streams`.

use reqwest::{Method, RequestBuilder};

use crate::client::{Answer, Client, answer};

mod about;
mod across;
mod bounds;
mod crash;
mod fork;
mod incarnations;
mod live;

/// Text, as it is.
const TEXT: &str = "text/plain";
/// A list of messages.
const JSON: &str = "application/json";

/// One stream, and who asks for it.
struct Stream {
    client: Client,
    path: String,
}

impl Stream {
    fn new(client: &Client, name: &str) -> Self {
        Self { client: client.clone(), path: format!("/v1/stream/{name}") }
    }

    /// Makes it, empty.
    async fn made(client: &Client, name: &str, content_type: &str) -> Self {
        let stream = Self::new(client, name);
        let made = answer(stream.put(content_type)).await;
        assert_eq!(made.status, 201, "{}", made.text());
        stream
    }

    fn request(&self, method: Method, query: &str) -> RequestBuilder {
        self.client.request(method, &format!("{}{query}", self.path))
    }

    fn put(&self, content_type: &str) -> RequestBuilder {
        self.request(Method::PUT, "").header("Content-Type", content_type)
    }

    fn post(&self, content_type: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
        self.request(Method::POST, "").header("Content-Type", content_type).body(body)
    }

    /// Appends, and gives the end after it.
    async fn append(&self, content_type: &str, body: impl Into<reqwest::Body>) -> String {
        let appended = answer(self.post(content_type, body)).await;
        assert!([200, 204].contains(&appended.status), "{} {}", appended.status, appended.text());
        next(&appended)
    }

    async fn close(&self) -> Answer {
        answer(self.request(Method::POST, "").header("Stream-Closed", "true")).await
    }

    async fn read(&self, query: &str) -> Answer {
        answer(self.request(Method::GET, query)).await
    }

    async fn head(&self) -> Answer {
        answer(self.request(Method::HEAD, "")).await
    }

    /// What there is, page by page, and how many pages it took.
    async fn read_all(&self) -> (Vec<u8>, usize) {
        let (mut whole, mut offset, mut pages) = (Vec::new(), "-1".to_owned(), 0);
        loop {
            let page = self.read(&format!("?offset={offset}")).await;
            assert_eq!(page.status, 200, "{}", page.text());
            whole.extend_from_slice(&page.body);
            (offset, pages) = (next(&page), pages + 1);
            if page.header("stream-up-to-date") == Some("true") {
                return (whole, pages);
            }
        }
    }
}

/// What an answer says is next.
fn next(answer: &Answer) -> String {
    answer.header("stream-next-offset").expect("it says what is next").to_owned()
}

fn is_closed(answer: &Answer) -> bool {
    answer.header("stream-closed") == Some("true")
}
