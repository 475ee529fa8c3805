//! Workspace tests; see the folder tests/tests.
