//! Tests of password hashing.
