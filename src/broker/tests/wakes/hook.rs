//! A webhook of the tests: it keeps what it is called with and answers as it is told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// A call as it came.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// The header `Webhook-Signature`.
    pub(super) signature: String,
    pub(super) body: Vec<u8>,
}

impl Call {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

pub(super) struct Hook {
    port: u16,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct State {
    calls: Mutex<Vec<Call>>,
    answers: Mutex<VecDeque<(u16, String)>>,
    count: watch::Sender<usize>,
    /// None: answers go at once.
    held: Mutex<Option<Arc<Semaphore>>>,
}

impl Hook {
    pub(super) async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (port, state, mut tasks) =
            (listener.local_addr().expect("bound").port(), Arc::<State>::default(), JoinSet::new());
        let shared = Arc::clone(&state);
        tasks.spawn(async move {
            let mut calls = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                calls.spawn(answer(socket, Arc::clone(&shared)));
            }
        });
        Self { port, state, _tasks: tasks }
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook", self.port)
    }

    /// What it answers to the next calls; to more it answers 500.
    pub(super) fn answers(&self, answers: &[(u16, &str)]) {
        let answers = answers.iter().map(|(status, body)| (*status, (*body).to_owned()));
        self.state.answers.lock().expect("no panic").extend(answers);
    }

    /// What it was called with since it was asked.
    pub(super) fn taken(&self) -> Vec<Call> {
        std::mem::take(&mut *self.state.calls.lock().expect("no panic"))
    }

    /// The same as JSON.
    pub(super) fn calls(&self) -> Vec<Value> {
        self.taken().iter().map(Call::json).collect()
    }

    /// Answers nothing until [`Hook::release`].
    pub(super) fn hold(&self) {
        *self.state.held.lock().expect("no panic") = Some(Arc::new(Semaphore::new(0)));
    }

    pub(super) fn release(&self) {
        let held = self.state.held.lock().expect("no panic").take();
        held.expect("it was held").close();
    }

    /// Waits until it was called so often, ever.
    pub(super) async fn called(&self, times: usize) {
        let mut count = self.state.count.subscribe();
        let called = timeout(Duration::from_secs(60), count.wait_for(|count| *count >= times)).await;
        called.expect("it is called").expect("it lives");
    }
}

async fn answer(socket: TcpStream, state: Arc<State>) {
    let mut socket = BufReader::new(socket);
    let (mut line, mut length, mut signature) = (String::new(), 0, String::new());
    while socket.read_line(&mut line).await.is_ok_and(|read| read > 2) {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        if line.to_ascii_lowercase().starts_with("webhook-signature:") {
            line.split_once(':').expect("a header").1.trim().clone_into(&mut signature);
        }
        line.clear();
    }
    let mut body = vec![0; length];
    if length == 0 || socket.read_exact(&mut body).await.is_err() {
        // Whoever called was killed.
        return;
    }
    state.calls.lock().expect("no panic").push(Call { signature, body });
    let (status, body) = state.answers.lock().expect("no panic").pop_front().unwrap_or((500, String::new()));
    let held = state.held.lock().expect("no panic").clone();
    state.count.send_modify(|count| *count += 1);
    if let Some(held) = held {
        let _ = held.acquire().await;
    }
    let head = format!(
        "HTTP/1.1 {status} X\r\nlocation: http://10.0.0.1/\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let _ = socket.write_all((head + &body).as_bytes()).await;
}
