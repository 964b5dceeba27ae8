/**
 * Kernels, the source each is in and its parameters: p an address (0: none), i a 32-bit integer, l a 64-bit integer, f a float.
 * As in `cuda/`.
 */
export const KERNELS = {
  gather_rows_float: { source: "dense.cu", parameters: "ippp" },
  gather_rows_act: { source: "dense.cu", parameters: "ippp" },
  add_norm: { source: "dense.cu", parameters: "iifpppppp" },
  add_norm_backward: { source: "dense.cu", parameters: "iiipppppp" + "ipp" },
  column_sums: { source: "dense.cu", parameters: "iiipp" },
  softmax_rows: { source: "dense.cu", parameters: "iipppp" },
  add_vectors: { source: "dense.cu", parameters: "lpp" },
  round_to_bf16: { source: "dense.cu", parameters: "lpp" },
  sum_of_squares: { source: "dense.cu", parameters: "lpp" },
  sum_of_partials: { source: "dense.cu", parameters: "ipp" },
  weighted_sum: { source: "dense.cu", parameters: "ippp" },
  adamw: { source: "dense.cu", parameters: "lppip" + "ppppp" },
  state_statistics: { source: "dense.cu", parameters: "iiplp" },
  rank_ids: { source: "scatter.cu", parameters: "iippp" },
  offset_ids: { source: "scatter.cu", parameters: "iipp" },
  start_ids: { source: "scatter.cu", parameters: "ipp" },
  place_rows: { source: "scatter.cu", parameters: "iippppp" },
  add_sorted_rows: { source: "scatter.cu", parameters: "ipppp" },
  conv: { source: "mixer.cu", parameters: "iiiippippplp" },
  conv_state: { source: "mixer.cu", parameters: "iiippi" + "plppl" },
  conv_backward: { source: "mixer.cu", parameters: "iiiippippplp" + "pip" },
  conv_state_backward: { source: "mixer.cu", parameters: "iiippippplp" + "pipl" },
  time_steps: { source: "mixer.cu", parameters: "iiffpipp" },
  time_steps_backward: { source: "mixer.cu", parameters: "iiffpippp" + "ip" },
  gated_norm: { source: "mixer.cu", parameters: "iiiifppippp" },
  gated_norm_backward: { source: "mixer.cu", parameters: "iiiiippippppp" + "ipp" },
  scan_serial: { source: "scan-serial.cu", parameters: "iiipppppplplp" },
  scan_serial_dc: { source: "scan-serial.cu", parameters: "iiippppplpplppp" },
  scan_serial_dx: { source: "scan-serial.cu", parameters: "iiippppppplppp" },
  scan_serial_db: { source: "scan-serial.cu", parameters: "iiipppppplppppp" },
  scan_serial_sum_heads: { source: "scan-serial.cu", parameters: "iippp" },
  scan_decays: { source: "scan-chunks.cu", parameters: "iiippppp" },
  scan_states: { source: "scan-chunks.cu", parameters: "iiiippppplplplp" },
  scan_outputs: { source: "scan-chunks.cu", parameters: "iiiipppppp" },
  scan_gradients: { source: "scan-chunks.cu", parameters: "iiiipppppppppppp" },
} as const satisfies Record<string, { source: string; parameters: string }>;

export type KernelName = keyof typeof KERNELS;
