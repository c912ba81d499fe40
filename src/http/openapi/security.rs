//! Who may call: the kinds of credentials, and which of them an operation takes with which scope.

use utoipa::openapi::Components;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};

use super::super::access::COOKIE_NAME;
use super::super::routes::{Needs, Route, SOCKET};

const BEARER: &str = "bearer";
const ROOT: &str = "root_key";
const TENANT: &str = "tenant";
const TICKET: &str = "ticket";
const COOKIE: &str = "cookie";
const WAKE: &str = "wake_token";

pub(super) fn add_schemes(components: &mut Components) {
    let bearer = |description: &str| {
        let mut scheme = Http::new(HttpAuthScheme::Bearer);
        scheme.description = Some(description.to_owned());
        SecurityScheme::Http(scheme)
    };
    let value = ApiKeyValue::with_description::<String>;
    components.add_security_scheme(
        BEARER,
        bearer("An API key of a tenant, `plk_…`, or a token (JWT) of an issuer that it trusts or of its own."),
    );
    components.add_security_scheme(ROOT, bearer("The operator's key. It acts inside a tenant with `Plinth-Tenant`."));
    components.add_security_scheme(WAKE, bearer("The token of one wake, `plw_…`, for what is done with that wake."));
    let tenant = value("Plinth-Tenant".to_owned(), "Beside the root key: the tenant in which it acts.".to_owned());
    components.add_security_scheme(TENANT, SecurityScheme::ApiKey(ApiKey::Header(tenant)));
    let ticket = "A one-time ticket of `POST /v1/tickets`, for clients that cannot set headers.";
    components.add_security_scheme(
        TICKET,
        SecurityScheme::ApiKey(ApiKey::Query(value("ticket".to_owned(), ticket.to_owned()))),
    );
    let cookie = "What a ticket left in the browser. Beside the spent ticket, from a page of the server's own origin, it \
        opens the same address again for 12 hours.";
    let cookie = value(COOKIE_NAME.to_owned(), cookie.to_owned());
    components.add_security_scheme(COOKIE, SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
}

/// What an operation needs: for people, for machines (`x-plinth-needs`), and as credentials of which one is enough.
pub(super) fn describe(operation: &mut Operation, route: &Route) {
    let (scope, need) = match route.needs {
        Needs::Nothing => {
            operation.security = Some(Vec::new());
            return;
        }
        Needs::Tenant => (None, "a key of a tenant"),
        Needs::Publish => (Some("publish"), "the scope `publish` for the topic"),
        Needs::Subscribe => (Some("subscribe"), "the scope `subscribe` for the topic"),
        Needs::View => (None, "any scope for the topic"),
        Needs::Manage => (Some("manage"), "the scope `manage` for the topic"),
        Needs::ViewAll => (None, "any scope for all streams of the subscription"),
        Needs::SubscribeAll => (Some("subscribe"), "the scope `subscribe` for all streams of the subscription"),
        Needs::ManageAll => (Some("manage"), "the scope `manage` for all streams of the subscription"),
        Needs::WakeToken => (None, "the token of the wake, and takes no other credential"),
        Needs::Admin => (Some("admin"), "the scope `admin`"),
        Needs::Operator => (Some("operator"), "the root key"),
    };
    operation.security = Some(credentials(route, scope));
    let description = operation.description.take().map(|text| text + "\n\n").unwrap_or_default();
    operation.description = Some(format!("{description}Needs {need}."));
    let needs = format!("{:?}", route.needs).to_lowercase();
    operation.extensions.get_or_insert_default().merge(Extensions::from_iter([("x-plinth-needs", needs)]));
}

/// The credentials of which one is enough, with the scope that each must have.
fn credentials(route: &Route, scope: Option<&str>) -> Vec<SecurityRequirement> {
    let scopes = || scope.map(str::to_owned).into_iter().collect::<Vec<String>>();
    let nothing = Vec::<String>::new;
    if route.needs == Needs::Operator {
        return vec![SecurityRequirement::new(ROOT, nothing())];
    }
    if route.needs == Needs::WakeToken {
        return vec![SecurityRequirement::new(WAKE, nothing())];
    }
    let mut credentials = vec![
        SecurityRequirement::new(BEARER, scopes()),
        SecurityRequirement::new(ROOT, nothing()).add(TENANT, nothing()),
    ];
    if route.needs == Needs::Subscribe || route.path == SOCKET {
        credentials.push(SecurityRequirement::new(TICKET, scopes()));
        credentials.push(SecurityRequirement::new(TICKET, scopes()).add(COOKIE, nothing()));
    }
    if route.path == SOCKET {
        // The credential may come with the subprotocols or in the first frame.
        credentials.push(SecurityRequirement::default());
    }
    credentials
}
