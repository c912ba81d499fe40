//! What happened, in order: a hash of all lines, and the lines when somebody wants to read them.

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// The trace of one run.
#[derive(Debug)]
pub struct Trace {
    begun: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    // Its keys are fixed, unlike those of a `HashMap`.
    hasher: DefaultHasher,
    kept: Option<String>,
}

impl Trace {
    /// An empty trace that begins now; `keep`: the lines, too.
    #[must_use]
    pub fn new(keep: bool) -> Self {
        let inner = Inner { hasher: DefaultHasher::new(), kept: keep.then(String::new) };
        Self { begun: Instant::now(), inner: Mutex::new(inner) }
    }

    /// Adds a line, with the virtual time.
    pub fn line(&self, text: &str) {
        let at = self.begun.elapsed().as_millis();
        let mut inner = self.lock();
        inner.hasher.write_u128(at);
        inner.hasher.write(text.as_bytes());
        inner.hasher.write_u8(0xff);
        if let Some(kept) = &mut inner.kept {
            writeln!(kept, "{at:>8} {text}").expect("a string takes everything");
        }
    }

    /// The hash of all lines so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.lock().hasher.finish()
    }

    /// The lines, if they were kept.
    #[must_use]
    pub fn kept(&self) -> Option<String> {
        self.lock().kept.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
