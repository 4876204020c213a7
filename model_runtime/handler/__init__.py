"""The LMI model folder: what turns request bodies into answers, under DJL Serving and under the local server alike."""
