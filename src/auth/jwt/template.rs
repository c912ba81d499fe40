//! Scopes with claims in them: `subscribe:users/{sub}/**`.
//!
//! A claim stands where `*` could: it has neither `.` nor `/`, so that no subject reaches into the topics of another.

use super::envelope::claim;
use super::fault::TokenFault;
use crate::auth::pattern::is_run;
use crate::auth::scope::Scope;

/// Longest name of a claim in a template, in bytes.
const CLAIM_BYTES_MAX: usize = 64;

/// A scope in which names of claims may stand for their values.
#[derive(Clone, Debug)]
pub(super) struct Template {
    text: Box<str>,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it, by name.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let filled = fill(text, |name| {
            let named = !name.is_empty() && name.len() <= CLAIM_BYTES_MAX && !name.contains(char::is_whitespace);
            named.then(|| "x".to_owned()).ok_or_else(|| format!("scope {text:?}: {{{name}}} names no claim"))
        })?;
        let action = filled.split_once(':').map_or(filled.as_str(), |(action, _)| action);
        if !text.starts_with(action) {
            return Err(format!("scope {text:?} has a claim in place of its action"));
        }
        Scope::parse(&filled).map_err(|why| why.replace(&format!("{filled:?}"), &format!("{text:?}")))?;
        Ok(Self { text: text.into() })
    }

    /// The scope with the values of `claims`.
    ///
    /// # Errors
    /// The claim that is missing or cannot stand there.
    pub(super) fn expand<'c>(&self, claims: impl Fn(&str) -> Option<&'c str>) -> Result<Scope, TokenFault> {
        let filled = fill(&self.text, |name| {
            let value = claims(name).ok_or_else(|| format!("the claim {name:?} is missing, or no text"))?;
            if value.is_empty() || !value.bytes().all(is_run) {
                return Err(format!("the claim {name:?} has other characters than A-Z a-z 0-9 _ ~ -"));
            }
            Ok(value.to_owned())
        });
        let scope = filled.and_then(|filled| Scope::parse(&filled));
        scope.map_err(|why| claim(format!("the scope {:?} cannot be given: {why}", self.text)))
    }
}

/// `text` with `value` in place of each `{name}`.
fn fill(text: &str, value: impl Fn(&str) -> Result<String, String>) -> Result<String, String> {
    let (mut filled, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) =
            after.split_once('}').ok_or_else(|| format!("scope {text:?} has a brace without its pair"))?;
        filled.push_str(before);
        filled.push_str(&value(name)?);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(template: &str, sub: &str) -> Result<String, TokenFault> {
        let template = Template::parse(template).expect(template);
        template.expand(|name| (name == "sub").then_some(sub)).map(|scope| scope.to_string())
    }

    #[test]
    fn a_claim_stands_for_one_level() {
        assert_eq!(expanded("subscribe:users/{sub}/**", "u-7").as_deref(), Ok("subscribe:users/u-7/**"));
        assert_eq!(expanded("publish:{sub}.{sub}", "a").as_deref(), Ok("publish:a.a"));
        assert_eq!(expanded("publish:plain", "a").as_deref(), Ok("publish:plain"));
    }

    #[test]
    fn a_claim_that_would_reach_further_is_refused() {
        for sub in ["", "*", "**", "a/b", "a.b", "../x", "a*", "{sub}", "a b", "ä", "a\0", "a%2Fb", "a:b"] {
            assert!(expanded("subscribe:users/{sub}/**", sub).is_err(), "{sub:?}");
        }
        assert!(expanded("subscribe:{sub}/x", "_usage").is_err(), "a reserved name");
        assert!(expanded("subscribe:a/{sub}", &"x".repeat(300)).is_err(), "too long");
        assert!(expanded("subscribe:{other}", "x").is_err(), "a claim that is not there");
    }

    #[test]
    fn a_template_is_a_scope_and_nothing_else() {
        for text in ["{sub}:orders", "{sub}", "publish:{", "publish:{}", "publish:a}b{", "read:{sub}", "publish:/{sub}"]
        {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }
}
