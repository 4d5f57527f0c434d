//! Linux as a network plugin needs it, and no word of CNI.
