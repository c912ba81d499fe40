//! List the streams of a tenant.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use plinth_api::ListPage;
use plinth_api::streams::Stream;

use crate::broker::StreamItem;
use crate::http::Front;
use crate::http::convert;
use crate::http::error::ApiError;
use crate::http::extract::Authed;

/// List the streams that the credential may know of, by name: its topics of one partition that are not compacted. That is no
/// use of a stream: none lives longer by it.
#[utoipa::path(
    get,
    path = "/v1/streams",
    operation_id = "list_streams",
    tag = "streams",
    params(
        ("prefix" = Option<String>, Query, description = "Only names that begin so"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Most items of the page; default 100"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, description = "One page", body = ListPage<Stream>))
)]
pub(crate) async fn list(
    State(front): State<Front>,
    Authed(caller): Authed,
    request: Request,
) -> Result<Response, ApiError> {
    caller.inside()?;
    let page = front.broker.list_streams(&caller, convert::topics_request(request.uri().query())?).await?;
    let streams = page.streams.iter().map(shown).collect();
    Ok(convert::json(StatusCode::OK, &convert::list_page(streams, page.more, |stream: &Stream| &stream.name)))
}

fn shown(item: &StreamItem) -> Stream {
    let (ttl, expires_at) = convert::ends_by_itself(&item.view);
    Stream {
        name: item.name.to_string(),
        content_type: item.view.content_type.to_string(),
        next_offset: item.view.next.to_string(),
        closed: item.view.closed,
        ttl,
        expires_at,
        created_at: item.created_at.0,
    }
}
