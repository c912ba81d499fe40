//! The WebSocket handshake: subprotocol, credential, limits of the connection.
//!
//! Browsers cannot set headers here, so a token may come as a second "subprotocol" or as a one-time ticket. Neither is
//! ever echoed or written to the log. Who comes by a ticket gets the cookie of `http::access`, which is good for reading.

use std::sync::Arc;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::SEC_WEBSOCKET_PROTOCOL;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use plinth_api::error::ErrorCode;
use plinth_api::frames::SUBPROTOCOL;
use plinth_api::limits::FRAME_BYTES_MAX;

use crate::auth::Credential;
use crate::http::Front;
use crate::http::access::{Access, by_ticket_or_cookie, foreign_page};
use crate::http::cors::check_page;
use crate::http::error::ApiError;
use crate::http::extract::{Params, authenticate, bearer, tenant_header, visit};

use crate::server::Tunnel;

use super::session::{self, Handshake};
use super::{READ_BUFFER_BYTES, WRITE_BUFFER_BYTES, WRITE_BUFFER_BYTES_MAX};

/// What a "subprotocol" that carries a token begins with.
const BEARER_PROTOCOL: &str = "bearer.";

/// Open a WebSocket that speaks `plinth.v1.json`; its frames are in `openapi/frames.schema.json`.
///
/// The credential comes as `Authorization: Bearer`, as the subprotocol `bearer.<token in base64url without padding>`
/// next to `plinth.v1.json`, as `?ticket=`, or in a first frame `auth` within 10 s. A ticket leaves the cookie
/// `__Secure-plinth`: within 12 hours the same page may open the same address again, with the spent ticket, to subscribe;
/// to publish again it needs a new ticket.
///
/// # Errors
/// A request that is no handshake, offers only other subprotocols, has an unknown query parameter or a credential that
/// is not valid.
#[utoipa::path(
    get,
    path = "/v1/ws",
    tag = "records",
    params(
        ("__Secure-plinth" = Option<String>, Cookie, description = "What a ticket left; beside the spent ticket, from a \
            page of the server's own origin, it opens the same address again"),
    ),
    responses((status = 101, description = "From here on the connection speaks `plinth.v1.json`"))
)]
pub async fn upgrade(State(front): State<Front>, request: Request) -> Result<Response, ApiError> {
    let (mut parts, _) = request.into_parts();
    let mut socket = WebSocketUpgrade::from_request_parts(&mut parts, &front)
        .await
        .map_err(|rejection| ApiError::invalid(format!("this path speaks WebSocket: {}", rejection.body_text())))?;
    let mut params = Params::parse(parts.uri.query());
    let ticket = params.take("ticket")?;
    params.finish()?;
    let offer = Offer::of(&parts.headers)?;
    let tenant = tenant_header(&parts.headers)?;
    if front.shutdown.is_cancelled() {
        return Err(ApiError::new(ErrorCode::ShuttingDown, "the node is stopping"));
    }
    let credential = one_credential(bearer(&parts.headers)?, offer.token.as_deref(), ticket.as_deref())?;
    let admitted = match credential {
        None => None,
        Some(credential) => Some(access(&front, &parts, credential, tenant).await),
    };
    let (mut access, refused) = match admitted {
        None => (None, None),
        Some(Ok(access)) => (Some(access), None),
        // A browser is shown no status: the connection says why it closes.
        Some(Err(error)) if error.code() == ErrorCode::QuotaExceeded => (None, Some(Box::new(error.problem().clone()))),
        Some(Err(error)) => return Err(error),
    };
    let handshake = Handshake {
        front: front.clone(),
        caller: access.as_ref().map(|access| access.caller.clone()),
        tenant: tenant.map(str::to_owned),
        visit: Arc::clone(visit(&parts)?),
        page: foreign_page(&parts),
        refused,
    };
    if offer.named {
        socket.set_selected_protocol(HeaderValue::from_static(SUBPROTOCOL));
    }
    let socket = socket
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
        .max_message_size(FRAME_BYTES_MAX)
        .max_frame_size(FRAME_BYTES_MAX);
    // The framework spawns the session; the token makes it one of the front's own tasks from now on.
    let owned = front.tasks.token();
    let tunnel = parts.extensions.remove::<Tunnel>();
    let mut response = socket.on_upgrade(async move |socket| {
        session::run(handshake, socket).await;
        drop((tunnel, owned));
    });
    if let Some(access) = &mut access {
        access.leave_cookie(&mut response);
    }
    Ok(response)
}

/// What the client offers as subprotocols.
#[derive(Debug, Default, PartialEq, Eq)]
struct Offer {
    /// Whether ours is among them.
    named: bool,
    /// The token that came in their disguise.
    token: Option<String>,
}

impl Offer {
    fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let mut offer = Self::default();
        let mut any = false;
        for value in headers.get_all(SEC_WEBSOCKET_PROTOCOL) {
            let list = value.to_str().map_err(|_| ApiError::invalid("`sec-websocket-protocol` is not ASCII"))?;
            for name in list.split(',').map(str::trim) {
                any = true;
                if name == SUBPROTOCOL {
                    offer.named = true;
                } else if let Some(encoded) = name.strip_prefix(BEARER_PROTOCOL)
                    && offer.token.replace(decode(encoded)?).is_some()
                {
                    return Err(ApiError::invalid("`sec-websocket-protocol` has more than one token"));
                }
            }
        }
        if any && !offer.named {
            return Err(ApiError::invalid(format!("no offered subprotocol is known here; `{SUBPROTOCOL}` is")));
        }
        Ok(offer)
    }
}

fn decode(encoded: &str) -> Result<String, ApiError> {
    let bytes = URL_SAFE_NO_PAD.decode(encoded).ok();
    let unreadable = "the token in `sec-websocket-protocol` is not base64url without padding";
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(|| ApiError::invalid(unreadable))
}

/// The credential, when there is one; more than one would leave open whose call it is.
fn one_credential<'a>(
    header: Option<&'a str>,
    offered: Option<&'a str>,
    ticket: Option<&'a str>,
) -> Result<Option<Credential<'a>>, ApiError> {
    match (header, offered, ticket) {
        (None, None, None) => Ok(None),
        (Some(token), None, None) | (None, Some(token), None) => Ok(Some(Credential::Bearer(token))),
        (None, None, Some(ticket)) => Ok(Some(Credential::Ticket(ticket))),
        (_, _, _) => Err(ApiError::invalid("a credential is given in more than one way")),
    }
}

async fn access(
    front: &Front,
    parts: &Parts,
    credential: Credential<'_>,
    tenant: Option<&str>,
) -> Result<Access, ApiError> {
    let access = match credential {
        Credential::Ticket(ticket) if tenant.is_none() => by_ticket_or_cookie(front, visit(parts)?, parts, ticket)?,
        Credential::Ticket(_) | Credential::Bearer(_) | Credential::Reconnect { .. } => {
            authenticate(front, credential, tenant).await?.into()
        }
    };
    access.caller.inside()?;
    check_page(foreign_page(parts).as_deref(), &access.caller)?;
    visit(parts)?.enter(&access.caller)?;
    Ok(access)
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(value: &'static str) -> Result<Offer, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(value));
        Offer::of(&headers)
    }

    #[test]
    fn a_client_may_offer_nothing_or_ours_with_a_token() {
        assert_eq!(Offer::of(&HeaderMap::new()).unwrap(), Offer { named: false, token: None });
        assert_eq!(offer("plinth.v1.json").unwrap(), Offer { named: true, token: None });
        let with_token = offer("graphql-ws, plinth.v1.json, bearer.cGxrX2E").unwrap();
        assert_eq!(with_token, Offer { named: true, token: Some("plk_a".to_owned()) });
    }

    #[test]
    fn a_client_that_offers_only_others_is_refused() {
        for offered in ["mqtt", "bearer.cGxrX2E", "plinth.v2.json", ""] {
            assert_eq!(offer(offered).unwrap_err().code(), ErrorCode::InvalidRequest, "{offered}");
        }
        assert!(offer("plinth.v1.json, bearer.a=b").is_err());
        assert!(offer("plinth.v1.json, bearer.YQ, bearer.Yg").is_err());
    }

    #[test]
    fn a_credential_comes_in_one_way() {
        assert!(one_credential(None, None, None).unwrap().is_none());
        assert!(matches!(one_credential(Some("a"), None, None), Ok(Some(Credential::Bearer("a")))));
        assert!(matches!(one_credential(None, Some("b"), None), Ok(Some(Credential::Bearer("b")))));
        assert!(matches!(one_credential(None, None, Some("c")), Ok(Some(Credential::Ticket("c")))));
        assert!(one_credential(Some("a"), None, Some("c")).is_err());
        assert!(one_credential(Some("a"), Some("a"), None).is_err());
    }
}
