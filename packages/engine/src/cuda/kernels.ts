/**
 * Kernels, the source each is in and its parameters: p an address (0: none), i a 32-bit integer, l a 64-bit integer, f a float.
 * As in `cuda/`.
 */
export const KERNELS = {
  gather_rows_float: { source: "norm.cu", parameters: "ippp" },
  gather_rows_act: { source: "norm.cu", parameters: "ippp" },
  add_norm: { source: "norm.cu", parameters: "iifpppppp" },
  add_norm_backward: { source: "norm.cu", parameters: "iiipppppp" + "ipp" },
  column_sums: { source: "norm.cu", parameters: "iiipp" },
  softmax_rows: { source: "softmax.cu", parameters: "iipppp" },
  add_vectors: { source: "sums.cu", parameters: "lpp" },
  round_to_bf16: { source: "sums.cu", parameters: "lpp" },
  sum_of_squares: { source: "sums.cu", parameters: "lpp" },
  sum_of_partials: { source: "sums.cu", parameters: "ipp" },
  weighted_sum: { source: "sums.cu", parameters: "ippp" },
  adamw: { source: "adamw.cu", parameters: "lppip" + "ppppp" },
  state_statistics: { source: "states.cu", parameters: "iiplp" },
  rank_ids: { source: "scatter.cu", parameters: "iippp" },
  offset_ids: { source: "scatter.cu", parameters: "iipp" },
  start_ids: { source: "scatter.cu", parameters: "ipp" },
  place_rows: { source: "scatter.cu", parameters: "iippppp" },
  add_sorted_rows: { source: "scatter.cu", parameters: "ipppp" },
  conv: { source: "conv.cu", parameters: "iiiippippplp" },
  conv_state: { source: "conv.cu", parameters: "iiippi" + "plppl" },
  conv_backward: { source: "conv-backward.cu", parameters: "iiiippippplp" + "pip" },
  conv_state_backward: { source: "conv-backward.cu", parameters: "iiippippplp" + "pipl" },
  time_steps: { source: "time-steps.cu", parameters: "iiffpipp" },
  time_steps_backward: { source: "time-steps.cu", parameters: "iiffpippp" + "ip" },
  gated_norm: { source: "gated-norm.cu", parameters: "iiiifppippp" },
  gated_norm_backward: { source: "gated-norm.cu", parameters: "iiiiippippppp" + "ipp" },
  scan_serial: { source: "scan-serial.cu", parameters: "iiipppppplplp" },
  scan_serial_dc: { source: "scan-serial.cu", parameters: "iiippppplpplppp" },
  scan_serial_dx: { source: "scan-serial.cu", parameters: "iiippppppplppp" },
  scan_serial_db: { source: "scan-serial.cu", parameters: "iiipppppplppppp" },
  scan_serial_sum_heads: { source: "scan-serial.cu", parameters: "iippp" },
  scan_decays: { source: "scan-decays.cu", parameters: "iiippppp" },
  scan_states: { source: "scan-states.cu", parameters: "iiiippppplplplp" },
  scan_outputs: { source: "scan-outputs.cu", parameters: "iiiipppppp" },
  scan_gradients: { source: "scan-gradients.cu", parameters: "iiiipppppppppppp" },
} as const satisfies Record<string, { source: string; parameters: string }>;

export type KernelName = keyof typeof KERNELS;
