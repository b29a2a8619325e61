//! The one integration-test binary.

mod cut;
mod expire;
mod grammar;
mod injection;
mod process;
mod s3;
mod sql;
mod support;
mod tidy;
mod wire;
