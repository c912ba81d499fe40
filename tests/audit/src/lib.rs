//! Checks a recorded history of publishes and reads against the promises of Plinth.
//!
//! A driver publishes records whose body says who wrote it ([`body`]), logs every request before it is sent and every
//! answer after it came ([`history`]), and every record that any observer was shown. [`check::check`] then finds what
//! must not be: loss, phantoms, duplicates, gaps that nobody announced, torn batches. It knows nothing of HTTP, and the
//! order of the log is the only clock it needs.

pub mod body;
pub mod check;
pub mod history;

pub use body::{Body, Writer};
pub use check::{Violation, check};
pub use history::{Class, Event, History, Outcome, Place, Seen};
