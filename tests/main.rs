//! The one integration-test binary.

mod consistency;
mod encryption;
mod expire;
mod explain;
mod fake_fe;
mod faults;
mod front_door;
mod grammar;
mod hostile;
mod incremental;
mod injection;
mod kills;
mod pace;
mod process;
mod prune;
mod s3;
mod shelf;
mod simulation;
mod sql;
mod starrocks;
mod starrocks_crash;
mod storage;
mod support;
mod tidy;
mod verify;
mod wire;
