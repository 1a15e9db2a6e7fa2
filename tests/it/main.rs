//! The one integration binary: what can be said about Esker from outside.

#![allow(clippy::unwrap_used)]

mod tidy;
