"""Tokens per second of Mamba-2 with the official code under PyTorch's DistributedDataParallel: bf16 autocast, fused AdamW, clipping.

Needs torch, mamba_ssm, causal_conv1d and GPUs; without them it says what is missing and exits with code 3. Called by gpu-cluster.ts --peer.
"""

import argparse
import os
import sys
import time


def rank_main(rank, args):
    import torch
    import torch.distributed as dist
    from mamba_ssm.models.config_mamba import MambaConfig
    from mamba_ssm.models.mixer_seq_simple import MambaLMHeadModel
    from torch.nn.parallel import DistributedDataParallel

    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29571")
    torch.cuda.set_device(rank)
    dist.init_process_group("nccl", rank=rank, world_size=args.gpus)
    torch.manual_seed(0)
    config = MambaConfig(
        d_model=args.dModel, n_layer=args.layers, vocab_size=args.vocab, ssm_cfg={"layer": "Mamba2"}, pad_vocab_size_multiple=16
    )
    model = DistributedDataParallel(MambaLMHeadModel(config, device="cuda"), device_ids=[rank], gradient_as_bucket_view=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    ids = torch.randint(0, args.vocab, (args.lanes, args.tokens + 1), device="cuda")

    def step():
        with torch.autocast("cuda", dtype=torch.bfloat16):
            logits = model(ids[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    for _ in range(5):
        step()
    torch.cuda.synchronize()
    steps, started = 0, time.perf_counter()
    while time.perf_counter() - started < args.seconds:
        for _ in range(5):
            step()
        torch.cuda.synchronize()
        steps += 5
    seconds = time.perf_counter() - started
    if rank == 0:
        import mamba_ssm

        rate = args.gpus * args.lanes * args.tokens * steps / seconds
        print(f"  PyTorch {torch.__version__} DDP, mamba_ssm {mamba_ssm.__version__}, {args.gpus} GPU(s): {rate:.0f} tokens/s")
    dist.destroy_process_group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("layers", "dModel", "vocab", "lanes", "tokens", "gpus"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=10)
    parsed = parser.parse_args()
    try:
        import mamba_ssm  # noqa: F401
        import torch
        import torch.multiprocessing as mp
    except ImportError as missing:
        print(f"  PyTorch's DistributedDataParallel was not run: {missing}", file=sys.stderr)
        sys.exit(3)
    mp.spawn(rank_main, args=(parsed,), nprocs=parsed.gpus)
