"""Makes a llama model of a few hundred kilobytes that knows one answer by heart.

Its vocabulary is the 256 bytes, the marks of a chat, and the whole answer as one piece. A token's
embedding is a unit vector of its own, attention and feed-forward add nothing, and the output matrix
maps each token to the one that follows it: the assistant's mark to the answer, the answer to the end.
"""

import gguf
import numpy as np

USER, ASSISTANT = "<|user|>", "<|assistant|>"
TEMPLATE = (
    "{% for m in messages %}" + USER + "{{ m['content'] }}{% endfor %}" + ASSISTANT
)


def write(path: str, answer: str) -> None:
    kind = gguf.TokenType
    vocabulary = [("<unk>", kind.UNKNOWN), ("<s>", kind.CONTROL), ("</s>", kind.CONTROL)]
    vocabulary += [(f"<0x{byte:02X}>", kind.BYTE) for byte in range(256)]
    vocabulary += [(USER, kind.CONTROL), (ASSISTANT, kind.CONTROL)]
    vocabulary += [(answer.replace(" ", "\u2581"), kind.NORMAL)]
    names = [name for name, _ in vocabulary]
    count, width, inner, heads = len(names), 288, 32, 4

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("one-answer")
    writer.add_context_length(8192)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_rope_dimension_count(width // heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(count)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(names)
    writer.add_token_scores([0.0] * count)
    writer.add_token_types([int(token_kind) for _, token_kind in vocabulary])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(TEMPLATE)

    embedding = np.zeros((count, width), np.float32)
    embedding[np.arange(count), np.arange(count)] = 1.0
    output = np.zeros((count, width), np.float32)
    said = names.index(answer.replace(" ", "\u2581"))
    output[said, names.index(ASSISTANT)] = 10.0
    output[names.index("</s>"), said] = 10.0
    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("output.weight", output)
    for name in ["output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"]:
        writer.add_tensor(f"{name}.weight", np.ones(width, np.float32))
    zeros = {
        "attn_q": (width, width),
        "attn_k": (width, width),
        "attn_v": (width, width),
        "attn_output": (width, width),
        "ffn_gate": (inner, width),
        "ffn_up": (inner, width),
        "ffn_down": (width, inner),
    }
    for name, shape in zeros.items():
        writer.add_tensor(f"blk.0.{name}.weight", np.zeros(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
