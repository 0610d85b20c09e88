from clray.seeding import derive_seed


def test_every_part_gives_another_seed() -> None:
    seeds = {
        derive_seed(seed, component, epoch=epoch, rank=rank)
        for seed in range(3)
        for component in ("shuffle", "augmentation")
        for epoch in range(3)
        for rank in range(3)
    }
    assert len(seeds) == 3 * 2 * 3 * 3


def test_the_same_parts_give_the_same_seed_in_every_process() -> None:
    assert derive_seed(0, "shuffle", epoch=1) == derive_seed(0, "shuffle", epoch=1)
    assert 0 <= derive_seed(7, "weights") < 2**63
