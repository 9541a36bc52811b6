//! Extract → call one service → respond. The file of a capability has the same name in every layer.
pub mod docs;
pub mod health;
pub mod jwks;
pub mod login;
pub mod me;
pub mod refresh;
pub mod register;
pub mod sessions;
pub mod verify;

mod views;
