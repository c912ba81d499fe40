//! Reports of browsers that a page has broken its content security policy. The browser itself is in `tests/e2e`.

use serde_json::json;

use crate::client::{Answer, Client, answer};
use crate::harness::Server;

const PATH: &str = "/csp-reports";
const REPORT: &str = "application/csp-report";

async fn send(client: &Client, media_type: &str, body: impl Into<reqwest::Body>) -> Answer {
    answer(client.post(PATH).header("Content-Type", media_type).body(body)).await
}

/// What browsers send, with secrets wherever they put text of the page.
fn report(directive: &str) -> String {
    let uri = "https://plinth.example/console/?CANARY7f3a#plk_CANARY7f3a";
    let violation = json!({"document-uri": uri, "referrer": uri, "blocked-uri": uri, "script-sample": "CANARY7f3a",
        "effective-directive": directive, "violated-directive": directive, "original-policy": "CANARY7f3a",
        "disposition": "enforce", "line-number": 1, "status-code": 200});
    json!({ "csp-report": violation }).to_string()
}

async fn counted(server: &Server) -> Vec<String> {
    let metrics = answer(server.stranger().get("/metrics")).await.text();
    metrics.lines().filter(|line| line.starts_with("plinth_policy_reports_total{")).map(str::to_owned).collect()
}

// Fails when anything of a report but the page and the directive goes into the log, and when either is not from a list.
#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_counted_and_nothing_that_it_quotes_is_kept() {
    let server = Server::start().await;
    let stranger = server.stranger();
    for directive in ["script-src-elem", "script-src-elem", "CANARY7f3a"] {
        let taken = send(&stranger, REPORT, report(directive)).await;
        assert_eq!((taken.status, taken.text().as_str()), (204, ""));
    }
    let expected = [("other", 1), ("script-src-elem", 2)];
    let mut counted = counted(&server).await;
    counted.sort();
    assert_eq!(
        counted,
        expected.map(|(name, count)| format!("plinth_policy_reports_total{{directive=\"{name}\"}} {count}"))
    );
    let log = server.stderr();
    assert!(log.contains("script-src-elem") && log.contains("console"), "{log}");
    assert!(!log.contains("CANARY7f3a") && !log.contains("plinth.example"), "{log}");
}

// Fails when the number of an address is not looked at.
#[tokio::test(flavor = "multi_thread")]
async fn one_address_has_a_number_of_reports_in_a_minute() {
    let server = Server::start().await;
    let stranger = server.stranger();
    let limit = plinth_api::limits::POLICY_REPORTS_PER_MINUTE_MAX;
    // Two minutes may have a part in it.
    let mut taken = 0;
    let refused = loop {
        let sent = send(&stranger, REPORT, report("img-src")).await;
        if sent.status != 204 {
            break sent;
        }
        taken += 1;
        assert!(taken <= 2 * limit, "there is no end");
    };
    assert!(taken >= limit);
    assert_eq!((refused.status, refused.problem().code.as_str()), (429, "quota_exceeded"));
    assert!(refused.header("retry-after").is_some() && refused.problem().detail.contains("limit of 20"));
    assert_eq!(counted(&server).await, [format!("plinth_policy_reports_total{{directive=\"img-src\"}} {taken}")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_report_is_refused_and_not_repeated() {
    let server = Server::start().await;
    let stranger = server.stranger();
    for (status, media_type, body) in [
        (415, "application/json", report("img-src")),
        (415, "text/html", report("img-src")),
        (400, REPORT, "<script>alert(1)</script>".to_owned()),
        (400, REPORT, "[]".to_owned()),
        (400, REPORT, String::new()),
        (413, REPORT, "x".repeat(plinth_api::limits::SETTINGS_BYTES_MAX + 1)),
    ] {
        let refused = send(&stranger, media_type, body).await;
        assert_eq!(refused.status, status, "{media_type}");
        assert!(!refused.text().contains("script>"), "{}", refused.text());
    }
    assert_eq!(answer(stranger.get(PATH)).await.status, 405);
    assert!(counted(&server).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_says_where_its_policy_is_reported() {
    let server = Server::start().await;
    for page in ["/console/", "/console/none", "/docs/", "/docs/limits", "/docs/errors", "/docs/errors/not_found"] {
        let shown = answer(server.stranger().get(page)).await;
        let policy = shown.header("content-security-policy").expect(page).to_owned();
        assert!(policy.ends_with(&format!("; report-uri {PATH}")), "{page}: {policy}");
    }
}
