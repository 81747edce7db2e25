//! track: the account of one exchange, closed when the last byte of its response has passed.

use std::sync::Arc;

use bytes::Bytes;
use http_body::Frame;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::backend::InFlight;
use crate::body::{End, OnEnd};
use crate::client::Lease;
use crate::metrics::Series;
use crate::outcome::{Cause, grpc_status};

/// What is held and counted until a response has ended.
pub(crate) struct Track {
    pub(crate) started: Instant,
    pub(crate) status: u16,
    pub(crate) is_grpc: bool,
    pub(crate) grpc_status: Option<u8>,
    pub(crate) series: Option<Arc<Series>>,
    /// The connection, to be used again.
    pub(crate) lease: Option<Lease>,
    /// The endpoint's load.
    pub(crate) in_flight: Option<InFlight>,
    /// The place among the backend's requests.
    pub(crate) permit: Option<OwnedSemaphorePermit>,
    bytes: u64,
    end: Option<OnEnd>,
}

impl Track {
    pub(crate) fn new(started: Instant, status: u16, is_grpc: bool) -> Self {
        Self {
            started,
            status,
            is_grpc,
            grpc_status: None,
            series: None,
            lease: None,
            in_flight: None,
            permit: None,
            bytes: 0,
            end: None,
        }
    }

    /// For a response made here, which somebody wants to see end.
    pub(crate) fn bare(end: OnEnd) -> Self {
        Self { end: Some(end), ..Self::new(Instant::now(), 0, false) }
    }

    pub(crate) fn on_end(&mut self, end: OnEnd) {
        self.end = Some(end);
    }

    pub(crate) fn is_grpc(&self) -> bool {
        self.is_grpc
    }

    /// The deadline cuts it off.
    pub(crate) fn is_late(&self) {
        if let Some(series) = &self.series {
            series.error(Cause::Timeout.token());
        }
    }

    pub(crate) fn frame(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            self.bytes += data.len() as u64;
        } else if let Some(trailers) = frame.trailers_ref() {
            self.grpc_status = self.grpc_status.or_else(|| grpc_status(trailers));
        }
    }

    pub(crate) fn finish(self, complete: bool) {
        let duration = self.started.elapsed();
        if let Some(series) = &self.series {
            series.record(self.status, self.is_grpc.then_some(self.grpc_status), duration);
        }
        if let Some(lease) = self.lease
            && complete
        {
            lease.give_back();
        }
        if let Some(end) = self.end {
            let grpc_status = self.grpc_status.filter(|_| self.is_grpc);
            end(&End { status: self.status, grpc_status, bytes: self.bytes, duration, complete });
        }
    }
}
