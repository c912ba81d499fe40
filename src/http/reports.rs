//! Where browsers report that a page of ours has broken its content security policy: somebody's markup was taken for our
//! own, or a change of the page does not fit its policy.
//!
//! Anybody can send such a report and put anything into it. So it is counted, and a log line names the page and the
//! directive, each from a closed list; nothing else of it is kept. Each address has a number of reports per minute; the
//! counts take a fixed room, and addresses whose hashes meet share one.

use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use axum::extract::{Request, State};
use axum::http::StatusCode;
use plinth_api::error::ErrorCode;
use plinth_api::limits::{POLICY_REPORTS_PER_MINUTE_MAX, SETTINGS_BYTES_MAX};
use plinth_storage::ids::Timestamp;
use serde::Deserialize;

use super::error::ApiError;
use super::extract::{self, Bound};
use super::front::Front;
use crate::server::ClientAddress;

/// Named by the policies of the console and of the documentation.
pub(super) const PATH: &str = "/csp-reports";

/// All browsers send this form to a `report-uri`.
const MEDIA_TYPE: &str = "application/csp-report";
/// Counts of addresses.
const COUNTS: usize = 1024;
const MINUTE_MS: u64 = 60_000;
/// What a policy of ours may name, and what it stands for (CSP level 3, §6).
const DIRECTIVES: [&str; 18] = [
    "base-uri",
    "child-src",
    "connect-src",
    "default-src",
    "font-src",
    "form-action",
    "frame-ancestors",
    "frame-src",
    "img-src",
    "manifest-src",
    "media-src",
    "object-src",
    "script-src",
    "script-src-attr",
    "script-src-elem",
    "style-src",
    "style-src-attr",
    "style-src-elem",
];
const OTHER: &str = "other";

/// How many reports came from where in this minute.
#[derive(Debug)]
pub(super) struct Reports {
    hasher: RandomState,
    minute: Mutex<Minute>,
}

#[derive(Debug)]
struct Minute {
    number: u64,
    taken: [u32; COUNTS],
}

/// The part of a report that is looked at.
#[derive(Debug, Deserialize)]
struct Report<'a> {
    #[serde(rename = "csp-report", borrow)]
    of: Violation<'a>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Violation<'a> {
    #[serde(borrow)]
    document_uri: Cow<'a, str>,
    #[serde(borrow)]
    effective_directive: Option<Cow<'a, str>>,
    /// What older browsers have instead: the directive, and what it allows.
    #[serde(borrow)]
    violated_directive: Option<Cow<'a, str>>,
}

impl Default for Reports {
    fn default() -> Self {
        Self { hasher: RandomState::new(), minute: Mutex::new(Minute { number: 0, taken: [0; COUNTS] }) }
    }
}

impl Reports {
    /// Whether one more report of this address is taken now.
    fn takes(&self, address: ClientAddress, now: Timestamp) -> bool {
        let at = self.hasher.hash_one(address.0.map(network)) as usize % COUNTS;
        let mut minute = self.minute.lock().unwrap_or_else(PoisonError::into_inner);
        let number = now.0 / MINUTE_MS;
        if minute.number != number {
            *minute = Minute { number, taken: [0; COUNTS] };
        }
        let taken = &mut minute.taken[at];
        *taken = taken.saturating_add(1);
        *taken <= POLICY_REPORTS_PER_MINUTE_MAX
    }
}

/// Who has one address of a /64 has all of them.
fn network(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits() >> 64 << 64,
    }
}

/// Takes a report of a browser.
pub(super) async fn take(State(front): State<Front>, request: Request) -> Result<StatusCode, ApiError> {
    let (parts, body) = request.into_parts();
    let address = extract::visit(&parts)?.connection().address();
    if !front.reports.takes(address, front.broker.log().now()) {
        let detail = format!("reports exceed the limit of {POLICY_REPORTS_PER_MINUTE_MAX} per minute and address");
        return Err(ApiError::new(ErrorCode::QuotaExceeded, detail));
    }
    if extract::media_type(&parts.headers)? != MEDIA_TYPE {
        return Err(ApiError::new(ErrorCode::UnsupportedMediaType, format!("a report is `{MEDIA_TYPE}`")));
    }
    let bound = Bound { max: SETTINGS_BYTES_MAX, what: "the report", room: None };
    let body = extract::body(&front, &parts.headers, body, bound).await?;
    // What is wrong with it is not repeated: it may hold anything.
    let (page, directive) = read(&body).ok_or_else(|| ApiError::invalid("the body is no report of a broken policy"))?;
    front.metrics.policy_broken(directive);
    tracing::warn!(page, directive, "a browser reports that a page has broken its content security policy");
    Ok(StatusCode::NO_CONTENT)
}

/// The page and the directive of a report.
pub(super) fn read(body: &[u8]) -> Option<(&'static str, &'static str)> {
    let report: Report<'_> = serde_json::from_slice(body).ok()?;
    Some((report.of.page(), report.of.directive()))
}

impl Violation<'_> {
    fn directive(&self) -> &'static str {
        let named = self.effective_directive.as_deref().or(self.violated_directive.as_deref()).unwrap_or_default();
        let name = named.split(' ').next().unwrap_or_default();
        DIRECTIVES.into_iter().find(|known| *known == name).unwrap_or(OTHER)
    }

    fn page(&self) -> &'static str {
        let path = self.document_uri.split_once("://").and_then(|(_, rest)| rest.split_once('/'));
        let first = path.map(|(_, path)| path.split(['/', '?', '#']).next().unwrap_or_default());
        ["console", "docs"].into_iter().find(|page| Some(*page) == first).unwrap_or(OTHER)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn a_report_tells_page_and_directive_from_closed_lists() {
        let report = |uri: &str, field: &str, directive: &str| {
            let violation = format!(r#"{{"document-uri":"{uri}","{field}":"{directive}","blocked-uri":"inline"}}"#);
            read(format!(r#"{{"csp-report":{violation}}}"#).as_bytes())
        };
        let effective = "effective-directive";
        assert_eq!(report("http://a/console/", effective, "script-src-elem"), Some(("console", "script-src-elem")));
        assert_eq!(report("https://a:1/docs/?x", "violated-directive", "img-src 'self'"), Some(("docs", "img-src")));
        assert_eq!(report("https://a/docs\\u003c", effective, "plk_secret"), Some((OTHER, OTHER)));
        assert_eq!(report("about", effective, ""), Some((OTHER, OTHER)));
        for bad in ["", "[]", "{}", r#"{"csp-report":{}}"#, r#"{"csp-report":{"document-uri":1}}"#] {
            assert_eq!(read(bad.as_bytes()), None, "{bad}");
        }
    }

    // Fails when the count is not begun anew, and when all addresses share one.
    #[test]
    fn each_network_has_its_number_of_reports_in_each_minute() {
        let reports = Reports::default();
        let v6 = |end: u16| ClientAddress(Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, end).into()));
        let now = Timestamp(10 * MINUTE_MS);
        let taken = (0..100).filter(|end| reports.takes(v6(*end), now)).count();
        assert_eq!(taken, POLICY_REPORTS_PER_MINUTE_MAX as usize);
        assert!(reports.takes(v6(1), Timestamp(now.0 + MINUTE_MS)));
        let others = (0..100).map(|end| ClientAddress(Some(Ipv4Addr::new(192, 0, 2, end).into())));
        assert!(others.filter(|address| reports.takes(*address, now)).count() > 50);
    }
}
