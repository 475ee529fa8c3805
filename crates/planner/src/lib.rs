//! Turns a spec and a machine into a plan, and says why.
