"""What a step of training minimises: a port, and one objective a file with the state it carries from step to step.

The formulas are in `clray.objective`; here they meet the model, the views and the clusters.
"""
