//! The regard spec language: TOML and expressions in, a resolved spec or diagnostics out.
