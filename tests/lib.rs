//! The promises of the product; see `promises/`.
