//! `--quota NAME=NUMBER`, for tenants and keys.

use plinth_api::quotas::Quotas;
use serde_json::{Map, Value};

use super::Usage;

/// The quotas with these changes, `name=number` or `name=none`.
pub(super) fn with_quotas(before: &Quotas, changes: &[String]) -> anyhow::Result<Quotas> {
    let mut quotas: Map<String, Value> = serde_json::from_value(serde_json::to_value(before)?)?;
    for change in changes {
        set_quota(&mut quotas, change)?;
    }
    serde_json::from_value(Value::Object(quotas)).map_err(|error| Usage(format!("--quota: {error}")).into())
}

fn set_quota(quotas: &mut Map<String, Value>, change: &str) -> anyhow::Result<()> {
    let wrong = || Usage(format!("--quota {change}: it is NAME=NUMBER or NAME=none, such as topics=1000"));
    let (name, number) = change.split_once('=').ok_or_else(wrong)?;
    let number = match number {
        "none" => Value::Null,
        number => number.parse::<u64>().map_err(|_| wrong())?.into(),
    };
    quotas.insert(name.to_owned(), number);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_are_set_and_taken_away_by_name_and_others_stay() {
        let with = |changes: &[&str]| {
            let before = Quotas { topics: Some(5), connections: Some(6), ..Quotas::default() };
            with_quotas(&before, &changes.iter().map(|change| (*change).to_owned()).collect::<Vec<_>>())
        };
        let expected = Quotas { topics: Some(7), followers: Some(8), ..Quotas::default() };
        assert_eq!(with(&["topics=7", "connections=none", "followers=8"]).expect("well formed"), expected);
        for wrong in ["topics", "topics=", "topics=many", "topics=-1", "topic=7"] {
            let error = with(&[wrong]).expect_err(wrong).to_string();
            assert!(error.contains("--quota"), "{error}");
        }
    }
}
