from types import SimpleNamespace

from convsmith.measure.predictor.jobs import Job, new_jobs


def test_members_of_a_small_space_are_given_once_and_the_table_is_looked_at_when_it_has_grown():
    """Reading all kernels of a table for each network that is skipped would take minutes of those to measure in."""

    class Rows(list):
        looks = 0

        def __iter__(self):
            Rows.looks += 1
            return super().__iter__()

    def endless():
        while True:
            yield from (Job(name, SimpleNamespace(kernels=(name,))) for name in ("a", "b", "c"))

    table = SimpleNamespace(kernels=Rows((str(number),) for number in range(50)))
    table.kernels.append(("b",))  # measured by another process
    found = []
    for job in new_jobs(endless(), lambda: table, lambda graph: graph.kernels):
        found.append(job.name)
        table.kernels.append((job.name,))
    assert found == ["a", "c"]
    assert Rows.looks == 3
