//! The headers of the protocol: their names, what is read from those of a request, and what is written into an answer.

use std::str::FromStr;

use axum::http::header::{CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use chrono::DateTime;
use plinth_api::limits::NUMBER_MAX;

use crate::broker::{Expiry, PageGap, StreamConfig, StreamProducer, StreamView, Token};
use crate::http::error::ApiError;

pub(super) const STREAM_NEXT_OFFSET: HeaderName = HeaderName::from_static("stream-next-offset");
pub(super) const STREAM_UP_TO_DATE: HeaderName = HeaderName::from_static("stream-up-to-date");
pub(super) const STREAM_CLOSED: HeaderName = HeaderName::from_static("stream-closed");
pub(super) const STREAM_CURSOR: HeaderName = HeaderName::from_static("stream-cursor");
pub(super) const STREAM_SSE_DATA_ENCODING: HeaderName = HeaderName::from_static("stream-sse-data-encoding");
pub(super) const PRODUCER_EPOCH: HeaderName = HeaderName::from_static("producer-epoch");
pub(super) const PRODUCER_SEQ: HeaderName = HeaderName::from_static("producer-seq");
pub(super) const PRODUCER_EXPECTED_SEQ: HeaderName = HeaderName::from_static("producer-expected-seq");
pub(super) const PRODUCER_RECEIVED_SEQ: HeaderName = HeaderName::from_static("producer-received-seq");
pub(super) const TRUE: HeaderValue = HeaderValue::from_static("true");

const PRODUCER_ID: HeaderName = HeaderName::from_static("producer-id");
const STREAM_SEQ: HeaderName = HeaderName::from_static("stream-seq");
const STREAM_TTL: HeaderName = HeaderName::from_static("stream-ttl");
const STREAM_EXPIRES_AT: HeaderName = HeaderName::from_static("stream-expires-at");
const PLINTH_GAP: HeaderName = HeaderName::from_static("plinth-gap");

/// A page that a browser makes of an answer has no scripts, and nothing of this origin.
const NO_PAGE: HeaderValue = HeaderValue::from_static("default-src 'none'; sandbox");
const ATTACHMENT: HeaderValue = HeaderValue::from_static("attachment");

const STREAM_FORKED_FROM: HeaderName = HeaderName::from_static("stream-forked-from");
const STREAM_FORK_OFFSET: HeaderName = HeaderName::from_static("stream-fork-offset");
const STREAM_FORK_SUB_OFFSET: HeaderName = HeaderName::from_static("stream-fork-sub-offset");

/// The largest time to live, in s: its end in ms is a number that every client can read.
const TTL_S_MAX: u64 = NUMBER_MAX / 1_000;

/// The longest time that is taken, and kept as it is: its parts of a second may have any number of digits.
const EXPIRES_AT_BYTES_MAX: usize = 64;

/// What a creation says of what it forks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fork {
    /// The address of the source, as it is given: a path.
    pub(super) from: String,
    /// The offset at which the fork leaves it.
    pub(super) offset: Option<String>,
    /// How far behind that.
    pub(super) sub: Option<u64>,
}

/// What a creation asks for, but for what it forks.
pub(super) fn config(headers: &HeaderMap) -> Result<StreamConfig, ApiError> {
    let (content_type, expiry) = (content_type(headers)?, expiry(headers)?);
    Ok(StreamConfig { content_type, closed: is_closed(headers), expiry, fork: None })
}

/// What a creation forks.
pub(super) fn fork(headers: &HeaderMap) -> Result<Option<Fork>, ApiError> {
    let offset = text(headers, &STREAM_FORK_OFFSET)?;
    let sub = text(headers, &STREAM_FORK_SUB_OFFSET)?;
    let Some(from) = text(headers, &STREAM_FORKED_FROM)? else {
        if offset.is_none() && sub.is_none() {
            return Ok(None);
        }
        let why = format!("`{STREAM_FORK_OFFSET}` and `{STREAM_FORK_SUB_OFFSET}` come with `{STREAM_FORKED_FROM}`");
        return Err(ApiError::invalid(why));
    };
    let sub = sub.map(|text| {
        let number = text.parse().ok().filter(|number| plain_digits(text) && *number <= NUMBER_MAX);
        let why =
            || format!("the header `{STREAM_FORK_SUB_OFFSET}` is {text:?} and not a number from 0 to {NUMBER_MAX}");
        number.ok_or_else(|| ApiError::invalid(why()))
    });
    Ok(Some(Fork { from: from.to_owned(), offset: offset.map(str::to_owned), sub: sub.transpose()? }))
}

/// The media type of the body, as it is given; none for an empty one.
pub(super) fn content_type(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let text = text(headers, &CONTENT_TYPE)?;
    Ok(text.filter(|text| !text.trim().is_empty()).map(str::to_owned))
}

/// Whether the stream is to be closed. Any other value than `true` is as none.
pub(super) fn is_closed(headers: &HeaderMap) -> bool {
    headers.get(&STREAM_CLOSED).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"))
}

/// The sequence of the stream that is to be above the one before.
pub(super) fn seq(headers: &HeaderMap) -> Result<Option<Bytes>, ApiError> {
    Ok(one(headers, &STREAM_SEQ)?.map(|value| Bytes::copy_from_slice(value.as_bytes())))
}

/// What an append is recognized by.
pub(super) fn producer(headers: &HeaderMap) -> Result<Option<StreamProducer>, ApiError> {
    let id = one(headers, &PRODUCER_ID)?;
    match (id, number(headers, &PRODUCER_EPOCH)?, number(headers, &PRODUCER_SEQ)?) {
        (None, None, None) => Ok(None),
        (Some(id), Some(epoch), Some(seq)) => {
            Ok(Some(StreamProducer { id: Bytes::copy_from_slice(id.as_bytes()), epoch, seq }))
        }
        (_, _, _) => {
            let why = format!("`{PRODUCER_ID}`, `{PRODUCER_EPOCH}` and `{PRODUCER_SEQ}` come together or not at all");
            Err(ApiError::invalid(why))
        }
    }
}

fn expiry(headers: &HeaderMap) -> Result<Option<Expiry>, ApiError> {
    match (text(headers, &STREAM_TTL)?, text(headers, &STREAM_EXPIRES_AT)?) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => {
            Err(ApiError::invalid(format!("`{STREAM_TTL}` and `{STREAM_EXPIRES_AT}` do not come together")))
        }
        (Some(ttl), None) => {
            let seconds = ttl.parse().ok().filter(|seconds| plain_digits(ttl) && *seconds <= TTL_S_MAX);
            let why = || format!("the header `{STREAM_TTL}` is {ttl:?} and not whole seconds from 0 to {TTL_S_MAX}");
            seconds.map(|seconds| Some(Expiry::Ttl(seconds))).ok_or_else(|| ApiError::invalid(why()))
        }
        (None, Some(at)) => {
            let time = DateTime::parse_from_rfc3339(at).ok().filter(|_| at.len() <= EXPIRES_AT_BYTES_MAX);
            let ms = time.and_then(|time| u64::try_from(time.timestamp_millis()).ok());
            let why = || format!("the header `{STREAM_EXPIRES_AT}` is {at:?} and not a time by RFC 3339, from 1970 on");
            ms.map(|ms| Some(Expiry::At { text: at.to_owned(), ms })).ok_or_else(|| ApiError::invalid(why()))
        }
    }
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Result<Option<u64>, ApiError> {
    let Some(text) = text(headers, name)? else { return Ok(None) };
    let number = u64::from_str(text).ok().filter(|number| digits(text) && *number <= NUMBER_MAX);
    let why = || format!("the header `{name}` is {text:?} and not a number from 0 to {NUMBER_MAX}");
    number.map(Some).ok_or_else(|| ApiError::invalid(why()))
}

/// Digits of a number as it is written without ornament.
fn plain_digits(text: &str) -> bool {
    digits(text) && (text == "0" || !text.starts_with('0'))
}

fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, ApiError> {
    let Some(value) = one(headers, name)? else { return Ok(None) };
    value.to_str().map(Some).map_err(|_| ApiError::invalid(format!("the header `{name}` is not visible ASCII")))
}

fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, ApiError> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(ApiError::invalid(format!("the header `{name}` is given more than once")));
    }
    Ok(first)
}

/// A position, as the value of a header.
pub(super) fn token(token: Token) -> HeaderValue {
    HeaderValue::from_bytes(&token.encode()).expect("digits and an underscore")
}

/// Says where the stream ends, or what to read next, and whether it is closed there.
pub(super) fn write_end(headers: &mut HeaderMap, next: Token, closed: bool) {
    headers.insert(STREAM_NEXT_OFFSET, token(next));
    if closed {
        headers.insert(STREAM_CLOSED, TRUE);
    }
}

/// Says that what is read reaches the end, if it does.
pub(super) fn write_up_to_date(headers: &mut HeaderMap, up_to_date: bool) {
    if up_to_date {
        headers.insert(STREAM_UP_TO_DATE, TRUE);
    }
}

/// Says what the stream is.
pub(super) fn write_view(headers: &mut HeaderMap, view: &StreamView) {
    headers.insert(CONTENT_TYPE, media_type(view));
    write_end(headers, view.next, view.closed);
}

/// Says what the bytes of an answer are. Whoever made the stream has chosen it: a browser that is led to its address is not to
/// take it for a page of this node, beside the console.
pub(super) fn write_media_type(headers: &mut HeaderMap, view: &StreamView) {
    headers.insert(CONTENT_TYPE, media_type(view));
    headers.insert(CONTENT_DISPOSITION, ATTACHMENT);
    headers.insert(CONTENT_SECURITY_POLICY, NO_PAGE);
}

/// Says when the stream ends by itself.
pub(super) fn write_expiry(headers: &mut HeaderMap, expiry: &Expiry) {
    match expiry {
        Expiry::Ttl(seconds) => headers.insert(STREAM_TTL, HeaderValue::from(*seconds)),
        Expiry::At { text, .. } => {
            headers.insert(STREAM_EXPIRES_AT, HeaderValue::from_str(text).expect("it came in a header"))
        }
    };
}

/// Says where records are missing.
pub(super) fn write_gaps(headers: &mut HeaderMap, gaps: &[PageGap]) {
    for gap in gaps {
        headers.append(PLINTH_GAP, HeaderValue::try_from(gap_text(gap)).expect("numbers and a word"));
    }
}

/// A gap, as a header and a control event say it.
pub(super) fn gap_text(gap: &PageGap) -> String {
    let PageGap { requested, resumed_at, reason, .. } = gap;
    format!("requested={requested}; resumed_at={resumed_at}; reason={reason}")
}

/// The media type of the stream, as it was given.
fn media_type(view: &StreamView) -> HeaderValue {
    HeaderValue::from_str(&view.content_type).expect("a media type was checked when it came")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T>(pairs: &[(&'static str, &'static str)], what: impl Fn(&HeaderMap) -> T) -> T {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        what(&headers)
    }

    fn refusal<T>(pairs: &[(&'static str, &'static str)], what: impl Fn(&HeaderMap) -> Result<T, ApiError>) -> String {
        read(pairs, what).err().expect("refused").problem().detail.clone()
    }

    #[test]
    fn a_time_to_live_is_whole_seconds_without_ornament() {
        for (text, seconds) in [("0", 0), ("60", 60), ("9007199254740", TTL_S_MAX)] {
            assert_eq!(read(&[("stream-ttl", text)], expiry).unwrap(), Some(Expiry::Ttl(seconds)));
        }
        for text in ["", "01", "+1", "-1", "1.5", "1e3", " 1", "9007199254741", "99999999999999999999"] {
            assert!(refusal(&[("stream-ttl", text)], expiry).contains("not whole seconds"), "{text}");
        }
        let both = [("stream-ttl", "1"), ("stream-expires-at", "2030-01-01T00:00:00Z")];
        assert!(refusal(&both, expiry).contains("do not come together"));
    }

    #[test]
    fn an_end_is_a_time_in_any_zone_and_is_given_back_as_it_came() {
        for text in ["2030-01-01T00:00:00.500Z", "2030-01-01T01:00:00.500+01:00"] {
            let at = Expiry::At { text: text.to_owned(), ms: 1_893_456_000_500 };
            assert_eq!(read(&[("stream-expires-at", text)], expiry).unwrap(), Some(at.clone()));
            let mut headers = HeaderMap::new();
            write_expiry(&mut headers, &at);
            assert_eq!(headers["stream-expires-at"], text);
        }
        let exact = "2030-01-01T00:00:00.000000000000000000000000000000000000000000001Z";
        for text in ["", "soon", "2030-01-01", "2030-13-01T00:00:00Z", "1969-12-31T23:59:59Z", exact] {
            assert!(refusal(&[("stream-expires-at", text)], expiry).contains("RFC 3339"), "{text}");
        }
    }

    #[test]
    fn a_producer_is_whole_or_not_there_and_its_id_is_any_bytes() {
        let all = [("producer-id", "p q"), ("producer-epoch", "3"), ("producer-seq", "07")];
        let producer_of = |pairs: &[(&'static str, &'static str)]| read(pairs, producer);
        let whole = StreamProducer { id: Bytes::from_static(b"p q"), epoch: 3, seq: 7 };
        assert_eq!(producer_of(&all).unwrap(), Some(whole));
        assert_eq!(producer_of(&[]).unwrap(), None);
        for missing in 0..3 {
            let some: Vec<_> = all.iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, pair)| *pair).collect();
            assert!(refusal(&some, producer).contains("come together"), "{some:?}");
        }
        for number in ["", "-1", "+1", "1.0", "9007199254740992"] {
            let bad = [("producer-id", "p"), ("producer-epoch", "0"), ("producer-seq", number)];
            assert!(refusal(&bad, producer).contains("`producer-seq` is"), "{number}");
        }
        let twice = [("producer-id", "p"), ("producer-id", "q"), ("producer-epoch", "0"), ("producer-seq", "0")];
        assert!(refusal(&twice, producer).contains("more than once"));
    }

    #[test]
    fn a_fork_says_from_what_and_its_place_is_a_plain_number() {
        assert_eq!(read(&[], fork).unwrap(), None);
        let all =
            [("stream-forked-from", "/v1/stream/a"), ("stream-fork-offset", "x"), ("stream-fork-sub-offset", "7")];
        let whole = Fork { from: "/v1/stream/a".into(), offset: Some("x".into()), sub: Some(7) };
        assert_eq!(read(&all, fork).unwrap(), Some(whole));
        let bare = Fork { from: "/v1/stream/a".into(), offset: None, sub: None };
        assert_eq!(read(&all[..1], fork).unwrap(), Some(bare));
        for alone in [&all[1..2], &all[2..], &[("stream-fork-sub-offset", "0")]] {
            assert!(refusal(alone, fork).contains("come with"), "{alone:?}");
        }
        for sub in ["", "-1", "+1", "01", "1.5", "x", "9007199254740992"] {
            let bad = [all[0], all[1], ("stream-fork-sub-offset", sub)];
            assert!(refusal(&bad, fork).contains("not a number"), "{sub}");
        }
    }

    #[test]
    fn only_true_closes() {
        for (text, closes) in
            [("true", true), ("TRUE", true), ("True", true), ("false", false), ("1", false), ("", false)]
        {
            assert_eq!(read(&[("stream-closed", text)], is_closed), closes, "{text}");
        }
    }
}
