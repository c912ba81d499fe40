//! What it costs to find out who calls and whether he may: in this process, by the calls that the handlers make.
//!
//! Each credential was seen before, as almost all are: what is measured is the look-up, not the first reading.

use std::time::{Duration, Instant};

use anyhow::Context;
use plinth_storage::Log;
use plinth_storage::log::LogOptions;
use plinth_storage::store;

use super::report::{Authentication, round};
use crate::auth::{Action, Auth, Credential, KeyRequest, TokenRequest};

/// Calls between two looks at the clock.
const ROUND: u32 = 1_000;

/// Measures each kind of credential for `time`.
pub(super) async fn run(time: Duration) -> anyhow::Result<Vec<Authentication>> {
    let log = Log::open(LogOptions::new(store::open("memory://")?)).await?;
    let (auth, made) = Auth::open(log.clone(), None).await?;
    let first = made.default_key.context("a first start makes a key")?;
    let admin = auth.authenticate(Credential::Bearer(&first), None)?;
    let scopes = ["publish:orders.*", "publish:users/**", "subscribe:**"].map(str::to_owned).to_vec();
    let request = KeyRequest {
        name: "bench".to_owned(),
        scopes: scopes.clone(),
        expires_in: Some("1d".to_owned()),
        ..KeyRequest::default()
    };
    let key = auth.create_key(&admin.admin()?, request).await?.key;
    let minter = auth.authenticate(Credential::Bearer(&key), None)?;
    let token = auth.mint(&minter, &TokenRequest::parse(&scopes, Some("1h"), Some("bench".to_owned()))?)?.token;
    let mut measured = Vec::new();
    for (credential, text) in [("API key", &key), ("token", &token)] {
        measured.push(measure(&auth, credential, text, time)?);
    }
    auth.close().await;
    log.close().await?;
    Ok(measured)
}

fn measure(auth: &Auth, credential: &'static str, text: &str, time: Duration) -> anyhow::Result<Authentication> {
    let call = || -> anyhow::Result<()> {
        let caller = auth.authenticate(Credential::Bearer(std::hint::black_box(text)), None)?;
        std::hint::black_box(caller.authorize(Action::Publish, "users/42/inbox")?);
        Ok(())
    };
    call()?;
    let mut rounds = Vec::new();
    let begin = Instant::now();
    while rounds.len() < 10 || begin.elapsed() < time {
        let began = Instant::now();
        for _ in 0..ROUND {
            call()?;
        }
        rounds.push(began.elapsed().as_secs_f64() * 1e6 / f64::from(ROUND));
    }
    let mean = rounds.iter().sum::<f64>() / rounds.len() as f64;
    rounds.sort_unstable_by(f64::total_cmp);
    let worst = rounds[rounds.len() * 99 / 100];
    let calls = rounds.len() as u64 * u64::from(ROUND);
    Ok(Authentication { credential, calls, mean_us: round(mean), p99_of_rounds_us: round(worst) })
}
