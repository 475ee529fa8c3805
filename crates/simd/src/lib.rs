//! Vector lanes over pulp and the maths that attention needs on them.
#![no_std]
