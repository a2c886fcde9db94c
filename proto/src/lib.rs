//! The wire formats of Linnet: gRPC between services, frames between owner and gateway, the client protocol, stored rows.
//!
//! Everything here is generated from `linnet/**/*.proto`, plus conversions to `linnet-types`. Packages are versioned;
//! fields are only added.

/// Generated code, one module per package.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
mod generated {
    /// Rows as stored.
    pub mod store {
        tonic::include_proto!("linnet.store.v1");
    }
}

pub use generated::store;
