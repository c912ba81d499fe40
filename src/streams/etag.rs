//! The `ETag` of a part of a stream, and `If-None-Match`.

use std::fmt::Write as _;
use std::ops::Range;

use axum::http::header::IF_NONE_MATCH;
use axum::http::{HeaderMap, HeaderValue};
use plinth_storage::ids::{Offset, TopicId};

/// It differs for everything that an answer says: the incarnation of the stream, the part, whether it reaches the end, and
/// whether that is for ever.
pub(super) fn of_part(id: TopicId, part: Range<Offset>, (up_to_date, closed): (bool, bool)) -> HeaderValue {
    let mut text = String::with_capacity(72);
    let end = match (up_to_date, closed) {
        (_, true) => ":c",
        (true, false) => "",
        (false, false) => ":p",
    };
    write!(text, r#""{id}:{}:{}{end}""#, part.start.0, part.end.0).expect("a string takes all");
    HeaderValue::try_from(text).expect("letters, digits and colons")
}

/// Whether the client has what `etag` names (RFC 9110 §13.1.2, weak comparison).
pub(super) fn is_known(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let lists = headers.get_all(IF_NONE_MATCH).iter().filter_map(|list| list.to_str().ok());
    lists.flat_map(|list| list.split(',')).map(str::trim).any(|one| {
        let one = one.strip_prefix("W/").unwrap_or(one);
        one == "*" || one.as_bytes() == etag.as_bytes()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_tags_names_what_the_client_has() {
        let etag = HeaderValue::from_static(r#""a:0:1""#);
        let known = |lists: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for list in lists {
                headers.append(IF_NONE_MATCH, HeaderValue::from_static(list));
            }
            is_known(&headers, &etag)
        };
        for lists in [&[r#""a:0:1""#][..], &[r#"W/"a:0:1""#], &[r#""x", "a:0:1""#], &["*"], &[r#""x""#, r#""a:0:1""#]] {
            assert!(known(lists), "{lists:?}");
        }
        for lists in [&[][..], &["a:0:1"], &[r#""a:0:1:c""#], &[r#""a:0:12""#], &[""]] {
            assert!(!known(lists), "{lists:?}");
        }
    }
}
