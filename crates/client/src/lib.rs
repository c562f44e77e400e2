//! How components speak to the API server.
