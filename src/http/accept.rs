//! Which media type an answer has, by the `Accept` header (RFC 9110 §12.5.1).

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;
use plinth_api::error::ErrorCode;

use super::error::ApiError;

/// The forms in which records are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MediaType {
    Json,
    Ndjson,
    EventStream,
    Batch,
}

impl MediaType {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::EventStream => "text/event-stream",
            Self::Batch => plinth_api::batch::MEDIA_TYPE,
        }
    }

    /// How well a media range fits: 0 for not at all, else more for a more specific one.
    fn fit(self, range: &str) -> u8 {
        let kind = self.as_str();
        let any_of_kind = range.strip_suffix("/*").is_some_and(|group| kind.split('/').next() == Some(group));
        match range {
            "*/*" => 1,
            _ if any_of_kind => 2,
            _ if range == kind => 3,
            _ => 0,
        }
    }
}

/// The offered type that the client likes best; of equals the first of `offered`.
///
/// # Errors
/// `NotAcceptable` when it likes none of them, naming those that are offered.
pub(super) fn negotiate(headers: &HeaderMap, offered: &[MediaType]) -> Result<MediaType, ApiError> {
    let ranges: Vec<(String, u16)> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(range)
        .collect();
    if ranges.is_empty() && !headers.contains_key(ACCEPT) {
        return Ok(offered[0]);
    }
    let mut best: Option<(u16, MediaType)> = None;
    for media_type in offered.iter().copied() {
        let quality = quality(media_type, &ranges);
        if quality > best.map_or(0, |(quality, _)| quality) {
            best = Some((quality, media_type));
        }
    }
    best.map(|(_, media_type)| media_type).ok_or_else(|| {
        let names = offered.iter().map(|media_type| media_type.as_str()).collect::<Vec<_>>().join(", ");
        ApiError::new(
            ErrorCode::NotAcceptable,
            format!("none of the accepted media types is offered; there are {names}"),
        )
    })
}

/// A media range and its weight in thousandths.
fn range(text: &str) -> Option<(String, u16)> {
    let mut parts = text.split(';').map(str::trim);
    let range = parts.next().filter(|range| !range.is_empty())?.to_ascii_lowercase();
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    let weight = weight.map_or(Some(1.0), |weight| weight.parse::<f32>().ok())?;
    // The cast saturates; a weight has at most three digits after the point.
    Some((range, (weight.clamp(0.0, 1.0) * 1000.0).round() as u16))
}

/// The weight of the most specific range that fits.
fn quality(media_type: MediaType, ranges: &[(String, u16)]) -> u16 {
    let fits = ranges.iter().map(|(range, weight)| (media_type.fit(range), *weight));
    fits.filter(|(fit, _)| *fit > 0).max().map_or(0, |(_, weight)| weight)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const ALL: [MediaType; 4] = [MediaType::Json, MediaType::Ndjson, MediaType::EventStream, MediaType::Batch];

    fn chosen(accept: &'static str) -> Result<MediaType, ErrorCode> {
        let headers = [(ACCEPT, HeaderValue::from_static(accept))].into_iter().collect();
        negotiate(&headers, &ALL).map_err(|error| error.code())
    }

    #[test]
    fn without_a_wish_the_first_offer_is_taken() {
        assert_eq!(negotiate(&HeaderMap::new(), &ALL).unwrap(), MediaType::Json);
        assert_eq!(chosen("*/*"), Ok(MediaType::Json));
        assert_eq!(negotiate(&HeaderMap::new(), &ALL[1..]).unwrap(), MediaType::Ndjson);
    }

    #[test]
    fn the_wish_with_the_highest_weight_wins() {
        assert_eq!(chosen("text/event-stream"), Ok(MediaType::EventStream));
        assert_eq!(chosen("application/json;q=0.5, application/x-ndjson"), Ok(MediaType::Ndjson));
        assert_eq!(chosen("text/*, application/json;q=0.9"), Ok(MediaType::EventStream));
        assert_eq!(chosen("Text/Event-Stream; charset=utf-8"), Ok(MediaType::EventStream));
        assert_eq!(chosen("application/vnd.plinth.batch"), Ok(MediaType::Batch));
    }

    #[test]
    fn a_weight_of_zero_excludes_a_type_that_a_wider_range_allows() {
        assert_eq!(chosen("application/json;q=0, */*;q=0.1"), Ok(MediaType::Ndjson));
    }

    #[test]
    fn a_wish_that_cannot_be_met_is_refused() {
        assert_eq!(chosen("application/vnd.plinth.batch+json"), Err(ErrorCode::NotAcceptable));
        assert_eq!(chosen("text/html"), Err(ErrorCode::NotAcceptable));
        assert_eq!(chosen("image/*"), Err(ErrorCode::NotAcceptable));
    }
}
