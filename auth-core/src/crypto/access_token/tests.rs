//! Tests of the access token.
