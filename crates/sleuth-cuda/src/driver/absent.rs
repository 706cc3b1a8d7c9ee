//! What stands for the driver where the feature `cuda` is off: types that have no values.

use std::convert::Infallible;

use super::Span;
use crate::discovery::{Discovery, NoDriver};
use crate::fault::Fault;

pub(crate) fn discover() -> Discovery {
    Discovery::absent(NoDriver::NotBuilt)
}

#[derive(Debug)]
pub(crate) struct Context(Infallible);

#[derive(Clone, Copy, Debug)]
pub(crate) struct ContextHandle(Infallible);

#[derive(Debug)]
pub(crate) struct Stream(Infallible);

#[derive(Debug)]
pub(crate) struct Pinned(Infallible);

// === impl Context ===

impl Context {
    /// Says that there is no such device; nobody comes here, since discovery finds none.
    pub(crate) fn retain(_ordinal: u32) -> Result<Self, Fault> {
        Err(Fault { call: "cuDevicePrimaryCtxRetain", code: 101 })
    }

    pub(crate) fn handle(&self) -> ContextHandle {
        match self.0 {}
    }

    pub(crate) fn memory(&self) -> Result<(u64, u64), Fault> {
        match self.0 {}
    }

    pub(crate) fn allocate(&self, _bytes: u64) -> Result<Span, Fault> {
        match self.0 {}
    }

    pub(crate) fn free(&self, _span: Span) -> Result<(), Fault> {
        match self.0 {}
    }

    pub(crate) fn pin(&self, _bytes: usize) -> Result<Pinned, Fault> {
        match self.0 {}
    }

    pub(crate) fn unpin(&self, _pinned: &mut Pinned) {
        match self.0 {}
    }

    pub(crate) fn stream(&self) -> Result<Stream, Fault> {
        match self.0 {}
    }

    pub(crate) fn enable_peer(&self, _peer: ContextHandle) -> Result<(), Fault> {
        match self.0 {}
    }
}

// === impl Stream ===

impl Stream {
    pub(crate) fn upload(&self, _to: Span, _from: &[u8]) -> Result<(), Fault> {
        match self.0 {}
    }

    pub(crate) fn download(&self, _from: Span, _to: &mut [u8]) -> Result<(), Fault> {
        match self.0 {}
    }

    pub(crate) fn copy_within(&self, _to: Span, _from: Span) -> Result<(), Fault> {
        match self.0 {}
    }

    pub(crate) fn copy_from_peer(
        &self,
        _to: Span,
        _context: &Context,
        _from: Span,
        _peer: ContextHandle,
    ) -> Result<(), Fault> {
        match self.0 {}
    }

    pub(crate) fn wait(&self) -> Result<(), Fault> {
        match self.0 {}
    }
}

// === impl Pinned ===

impl Pinned {
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        match self.0 {}
    }
}
