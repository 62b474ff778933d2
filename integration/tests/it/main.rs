//! husk with real guests. Quick and telling things first: the files are run in the order of their names.
//!
//! Run by `make test` on a machine whose KVM runs guests; without one of its variables a test says so and fails.

mod a_run;
mod b_process;
mod c_streams;
mod d_terminal;
mod e_verbs;
mod f_refused;
mod g_files;
mod h_machine;
mod i_death;
mod j_debian;
mod k_linux;
mod l_hooks;
mod m_limits;
mod n_options;
mod o_network;
mod p_files;
mod q_mounts;
mod q_sockets;
mod q_systemd;
mod r_work;
mod s_large;
mod t_cpython;
mod u_pods;
mod u_traffic;
mod v_template;
mod w_faults;
mod w_kills;
mod w_memory;
mod x_evil_agent;
mod x_evil_guest;
mod x_kill;
mod y_soak;
