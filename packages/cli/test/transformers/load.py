"""load.py FOLDER...: what transformers makes of exported folders: one JSON object a line. The request comes as JSON on standard input."""

import json
import logging
import sys

import torch
import transformers

logging.disable(logging.WARNING)
torch.set_num_threads(1)
request = json.load(sys.stdin)
for folder in sys.argv[1:]:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    prompt = torch.tensor([tokenizer(request["prompt"]).input_ids])
    with torch.no_grad():
        logits = model(prompt, use_cache=False).logits[0, -1].tolist()
        every = model.generate(prompt, max_new_tokens=request["tokens"], do_sample=False)[0].tolist()
    found = {
        "transformers": transformers.__version__,
        "dtype": json.load(open(f"{folder}/config.json"))["dtype"],
        "endToken": tokenizer.eos_token,
        "endId": tokenizer.eos_token_id,
        "modelEndId": model.generation_config.eos_token_id,
        "ids": [tokenizer(text).input_ids for text in request["texts"]],
        "back": [tokenizer.decode(tokenizer(text).input_ids) for text in request["texts"]],
        "logits": logits,
        "continuation": every[prompt.shape[1] :],
    }
    print(json.dumps(found), flush=True)
