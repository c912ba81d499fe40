//! Whose pages may use the API: the origins that tenants list, all of them in memory.
//!
//! A browser asks before it sends a credential, so at that moment it is not known whose it will be: then an origin is let
//! through that any tenant lists. The answer to the call itself is told by the list of its own tenant.

use std::collections::HashMap;

use plinth_storage::ids::TenantId;

/// Stands in a list for every origin.
pub(super) const ANY: &str = "*";

/// That pages of an origin are allowed, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// The origin itself is listed.
    Named,
    /// Every origin is.
    Any,
}

/// Which origins are listed, and by how many tenants.
#[derive(Debug, Default)]
pub(super) struct Origins {
    lists: HashMap<TenantId, Vec<String>>,
    listed: HashMap<String, usize>,
}

impl Origins {
    /// Takes `list` in the place of the one of `tenant` before.
    pub(super) fn set(&mut self, tenant: TenantId, list: &[String]) {
        for origin in self.lists.remove(&tenant).unwrap_or_default() {
            if let Some(count) = self.listed.get_mut(&origin) {
                *count -= 1;
                if *count == 0 {
                    self.listed.remove(&origin);
                }
            }
        }
        for origin in list {
            *self.listed.entry(origin.clone()).or_default() += 1;
        }
        if !list.is_empty() {
            self.lists.insert(tenant, list.to_owned());
        }
    }

    pub(super) fn allowed(&self, origin: &str) -> Option<Allowed> {
        if self.listed.contains_key(origin) {
            return Some(if origin == ANY { Allowed::Any } else { Allowed::Named });
        }
        self.listed.contains_key(ANY).then_some(Allowed::Any)
    }
}

/// Whether `list` allows `origin`.
pub(super) fn allowed_by(list: &[String], origin: &str) -> Option<Allowed> {
    if list.iter().any(|listed| listed == origin && listed != ANY) {
        return Some(Allowed::Named);
    }
    list.iter().any(|listed| listed == ANY).then_some(Allowed::Any)
}

/// Whether a browser would send exactly this for a page, or it stands for every one.
pub(super) fn is_listable(text: &str) -> bool {
    let page = || url::Url::parse(text);
    text == ANY
        || !text.contains(ANY)
            && page()
                .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.origin().ascii_serialization() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(number: u128) -> TenantId {
        TenantId(ulid::Ulid(number))
    }

    fn list(origins: &[&str]) -> Vec<String> {
        origins.iter().map(|origin| (*origin).to_owned()).collect()
    }

    #[test]
    fn an_origin_is_let_through_for_as_long_as_some_tenant_lists_it() {
        let mut origins = Origins::default();
        assert_eq!(origins.allowed("https://a.example"), None);
        origins.set(tenant(1), &list(&["https://a.example", "https://b.example"]));
        origins.set(tenant(2), &list(&["https://a.example"]));
        assert_eq!(origins.allowed("https://a.example"), Some(Allowed::Named));
        origins.set(tenant(1), &list(&["https://b.example"]));
        assert_eq!(origins.allowed("https://a.example"), Some(Allowed::Named));
        origins.set(tenant(2), &[]);
        assert_eq!(origins.allowed("https://a.example"), None);
        assert_eq!(origins.allowed("https://b.example"), Some(Allowed::Named));
        origins.set(tenant(2), &list(&[ANY]));
        assert_eq!(origins.allowed("https://anywhere.example"), Some(Allowed::Any));
        assert_eq!(origins.allowed("https://b.example"), Some(Allowed::Named));
        origins.set(tenant(2), &[]);
        origins.set(tenant(1), &[]);
        assert!(origins.lists.is_empty() && origins.listed.is_empty());
    }

    #[test]
    fn only_what_browsers_send_can_be_listed() {
        for good in ["https://a.example", "http://localhost:3000", "https://[::1]:8443", "*"] {
            assert!(is_listable(good), "{good}");
        }
        for bad in [
            "",
            "null",
            "a.example",
            "https://a.example/",
            "https://A.example",
            "https://a.example:443",
            "ftp://a.example",
            "https://*.example",
            "https://a.example,https://b.example",
            "https://user@a.example",
            "**",
            "file://",
        ] {
            assert!(!is_listable(bad), "{bad}");
        }
    }
}
