//! carried: streams as gRPC carries them (gRPC over HTTP/2, <https://grpc.io/docs/>: "Requests",
//! "Responses").
//!
//! tonic's server writes answers into a buffer that a stream keeps for as long as it lives, as large as
//! its largest answer, and the first holds all that a proxy needs. Here each answer is written into
//! bytes of its own, which are gone when they are sent. Requests are read by tonic.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use policy::limits;
use policy::wire::codec::Codec;
use policy::wire::v1::{self, policy_server::SERVICE_NAME};
use prost::Message as _;
use tonic::body::Body;
use tonic::codec::Codec as _;
use tonic::codegen::Service;
use tonic::server::NamedService;
use tonic::{Code, Request, Status, Streaming};

use super::{Answers, Watcher};

/// The flag and the length in front of a message ("Length-Prefixed-Message").
const PREFIX_BYTES: usize = 5;

/// The service `tidegate.policy.v1.Policy`.
#[derive(Clone)]
pub(crate) struct PolicyService(Arc<Watcher>);

impl PolicyService {
    pub(crate) fn new(watcher: Watcher) -> Self {
        Self(Arc::new(watcher))
    }
}

impl NamedService for PolicyService {
    const NAME: &'static str = SERVICE_NAME;
}

impl Service<http::Request<Body>> for PolicyService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answers = match request.uri().path().rsplit('/').next() {
            Some("Watch") => {
                let decoder = Codec::<v1::WatchResponse, v1::WatchRequest>::default().decoder();
                let bytes = Some(limits::CONTROL_MESSAGE_BYTES_MAX);
                let read = |body| Streaming::new_request(decoder, body, None, bytes);
                self.0.watch(Request::from_http(request.map(read)))
            }
            _ => Err(Status::unimplemented("the service Policy has no such method")),
        };
        ready(Ok(match answers {
            Ok(answers) => {
                let mut response = http::Response::new(Body::new(Carried { answers, is_over: false }));
                let grpc = HeaderValue::from_static("application/grpc");
                response.headers_mut().insert(CONTENT_TYPE, grpc);
                response
            }
            Err(status) => status.into_http(),
        }))
    }
}

/// Answers as the body of a response.
struct Carried {
    answers: Answers,
    is_over: bool,
}

impl http_body::Body for Carried {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let status = match ready!(self.answers.as_mut().poll_next(context)) {
            Some(Ok(answer)) => return Poll::Ready(Some(Ok(Frame::data(message(&answer))))),
            Some(Err(status)) => status,
            None => Status::new(Code::Ok, ""),
        };
        self.is_over = true;
        let mut trailers = HeaderMap::new();
        if status.add_header(&mut trailers).is_err() {
            trailers.insert(Status::GRPC_STATUS, HeaderValue::from(status.code() as i32));
        }
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
}

/// An answer in as many bytes as it takes.
fn message(answer: &v1::WatchResponse) -> Bytes {
    let length = answer.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + length);
    bytes.put_u8(0);
    // An answer has ANSWER_BYTES and one document more at most.
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    answer.encode_raw(&mut bytes);
    bytes.freeze()
}
