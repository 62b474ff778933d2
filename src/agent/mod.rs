//! The host's end of the conversation with the agent in the guest.
